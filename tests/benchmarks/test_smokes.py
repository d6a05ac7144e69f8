"""Every benchmark has a smoke, and every command of the benchmarks answers ``--help``.

The smoke of ``benchmarks/<name>.py``, or of the package ``benchmarks/<name>/``, is a test called
``test_smoke_<name>`` in this folder. A module that another one starts is named in a comment beside
the smoke that runs it: ``# also runs: camera_viewer, scaling.engine_point``.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

from tests.commands import Caller

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[1] / "benchmarks"


def is_run(source: str) -> bool:
    """Whether a module does something when it is run as a program."""
    return any(
        isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
        for node in ast.parse(source).body
    )


def programs(folder: Path) -> dict[str, Path]:
    """Modules that can be run, by their name below ``patchline.benchmarks``."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        if path.name == "__main__.py" or is_run(path.read_text(encoding="utf-8")):
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            found[name.removesuffix(".__main__")] = path
    return found


def smoked(source: str) -> set[str]:
    """What a test file runs; a dot is an underscore in the name of a test."""
    found = set(re.findall(r"^\s*def test_smoke_(\w+)\(", source, re.MULTILINE))
    for names in re.findall(r"^\s*# also runs: (.+)$", source, re.MULTILINE):
        found |= {name.strip().replace(".", "_") for name in names.split(",")}
    return found


PROGRAMS = programs(BENCHMARKS)
SMOKED = {name for path in HERE.rglob("test_*.py") for name in smoked(path.read_text("utf-8"))}
COMMANDS = [
    name
    for name, path in PROGRAMS.items()
    if "run_command(" in path.read_text(encoding="utf-8") and name != "gpu_check"
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_a_smoke(name: str) -> None:
    assert name.replace(".", "_") in SMOKED, f"write test_smoke_{name.replace('.', '_')}"


def test_every_smoke_is_of_a_program() -> None:
    assert {name.replace(".", "_") for name in PROGRAMS} >= SMOKED


def test_programs_are_found() -> None:
    assert {"accuracy", "coreset", "camera_viewer", "gpu_check", "latency"} <= PROGRAMS.keys()
    assert not {"report", "schema", "camera_lines", "gpu_check.run"} & PROGRAMS.keys()


def test_a_program_without_a_smoke_is_seen(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    sources = {
        "alone.py": 'if __name__ == "__main__":\n    main()\n',
        "library.py": "def main() -> None: ...\nTEXT = 'if __name__ == '\n",
        "package/__main__.py": "print(1)\n",
        "package/worker.py": "if '__main__' == __name__:\n    main()\n",
    }
    for name, source in sources.items():
        (tmp_path / name).write_text(source)
    assert programs(tmp_path).keys() == {"alone", "package", "package.worker"}


def test_smokes_are_read_from_names_and_comments() -> None:
    source = (
        "def test_smoke_alone(tmp_path):\n    pass\n"
        "class TestIt:\n    # also runs: package.worker, other\n"
        "    def test_smoke_package(self): ...\n"
        "def test_another(): 'test_smoke_text( '\n"
    )
    assert smoked(source) == {"alone", "package", "package_worker", "other"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_answers_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"patchline.benchmarks.{name}")
    if not hasattr(module, "main"):
        module = importlib.import_module(f"patchline.benchmarks.{name}.__main__")
    monkeypatch.setenv("COLUMNS", "200")
    done = Caller(monkeypatch, capsys)(module, "--help")
    assert done.status == 0
    assert "Usage: " in done.stdout
    assert sys.argv == ["command", "--help"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_names_every_command(name: str) -> None:
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{re.escape(name)}\b", page), f"benchmarks/README.md lacks {name}"
