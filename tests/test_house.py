"""The house rules: what ships, which way imports point, and that every command answers."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest

from tests.programs import run_program

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SCRIPTS: dict[str, str] = PROJECT["project"]["scripts"]

ORDER = ("runtime", "calibration", "export", "benchmarks")
"""Each may import itself and what stands before it."""

LIGHT = ("runtime", "calibration")
HEAVY = {"torch", "torchvision", "timm", "onnx", "onnxscript", "sklearn"}
"""What the light folders never import."""


def source_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


def packages_of(root: Path) -> set[str]:
    """Dotted names of the package folders below ``root``."""
    return {
        ".".join(("patchline", *file.parent.relative_to(root).parts))
        for top in ORDER
        for file in (root / top).rglob("__init__.py")
    }


MODULES = {
    ".".join(("patchline", *file.relative_to(ROOT).with_suffix("").parts)): file
    for top in ORDER
    for file in source_files(ROOT / top)
}


def imported_names(source: str, module: str) -> Iterator[str]:
    """Every dotted name that ``module`` imports, anywhere in it, relative and by function too."""
    package = module.removesuffix(".__init__").split(".")
    if not module.endswith(".__init__"):
        package = package[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_function(node.func):
            yield from (a.value for a in node.args if _is_text(a))  # type: ignore[attr-defined]


def _is_import_function(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"import_module", "__import__"}


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def wrong_imports(source: str, module: str) -> set[str]:
    """The imports of a module that point the wrong way, or are too heavy for its folder."""
    top = module.split(".")[1]
    later = ORDER[ORDER.index(top) + 1 :]
    found = set()
    for name in imported_names(source, module):
        parts = name.split(".")
        if parts[0] == "patchline" and len(parts) > 1 and parts[1] in later:
            found.add(".".join(parts[:2]))
        if top in LIGHT and parts[0] in HEAVY:
            found.add(parts[0])
    return found


COMMANDS_OF_EXPORT = ("patchline.export.cli", "patchline.export.demo")
"""What stands on all other folders of export: they never import it."""


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[1] == "export"])
def test_no_part_of_export_imports_its_commands(module: str) -> None:
    if not module.startswith(COMMANDS_OF_EXPORT):
        names = imported_names(MODULES[module].read_text(encoding="utf-8"), module)
        assert not [name for name in names if name.startswith(COMMANDS_OF_EXPORT)]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    assert wrong_imports(MODULES[module].read_text(encoding="utf-8"), module) == set()


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("patchline.runtime.a", "import patchline.export.fit", "patchline.export"),
        ("patchline.runtime.a", "from patchline import calibration", "patchline.calibration"),
        ("patchline.runtime.a", "from patchline.benchmarks import latency", "patchline.benchmarks"),
        ("patchline.runtime.cli.a", "from ...export import fit", "patchline.export"),
        ("patchline.runtime.cli.__init__", "from ... import export", "patchline.export"),
        ("patchline.runtime.a", "def f():\n    import torch.nn", "torch"),
        ("patchline.runtime.a", "try:\n    import numpy, onnx\nexcept E: pass", "onnx"),
        ("patchline.runtime.a", "if TYPE_CHECKING:\n    from torch import Tensor", "torch"),
        ("patchline.runtime.a", "importlib.import_module('timm.models')", "timm"),
        ("patchline.runtime.a", "torch = __import__('torch')", "torch"),
        ("patchline.calibration.a", "from sklearn.metrics import auc", "sklearn"),
        ("patchline.calibration.a", "from patchline.export.state import x", "patchline.export"),
        ("patchline.export.a", "import patchline.benchmarks", "patchline.benchmarks"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, expected: str) -> None:
    assert wrong_imports(source, module) == {expected}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("patchline.runtime.cli.a", "from ..engine import open_engine"),
        ("patchline.runtime.engine.onnxruntime", "import onnxruntime"),
        ("patchline.calibration.a", "from patchline.runtime import contract\nimport scipy"),
        ("patchline.export.a", "import torch\nfrom patchline.calibration import folds"),
        ("patchline.benchmarks.a", "import patchline.export.fit, sklearn, torch"),
    ],
)
def test_a_right_import_is_left_alone(module: str, source: str) -> None:
    assert wrong_imports(source, module) == set()


def test_all_folders_are_walked() -> None:
    tops = {module.split(".")[1] for module in MODULES}
    assert tops == set(ORDER)
    assert "patchline.runtime.cli.run_camera" in MODULES
    assert len(MODULES) > 50


def test_packages_lists_every_package_folder() -> None:
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(packages_of(ROOT))
    assert len(set(listed)) == len(listed)


def test_every_folder_of_modules_is_a_package() -> None:
    """A folder without ``__init__.py`` would be left out in silence."""
    for file in MODULES.values():
        assert (file.parent / "__init__.py").is_file(), file.parent


def test_package_dir_covers_the_packages() -> None:
    folders = PROJECT["tool"]["setuptools"]["package-dir"]
    assert folders == {f"patchline.{top}": top for top in ORDER}
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        top = ".".join(package.split(".")[:2])
        below = package.split(".")[2:]
        assert ROOT.joinpath(folders[top], *below, "__init__.py").is_file()


def test_the_namespace_has_no_init_of_its_own() -> None:
    import patchline

    assert patchline.__file__ is None
    assert not (ROOT / "__init__.py").exists()


@pytest.mark.parametrize("top", ORDER)
def test_every_part_ships_its_types(top: str) -> None:
    assert (ROOT / top / "py.typed").is_file()


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    assert docstring
    assert docstring.strip()


_COLORS = {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"}
PLAIN = {key: value for key, value in os.environ.items() if key not in _COLORS} | {"TERM": "dumb"}

HELP = """
import importlib, sys
module, function, name = sys.argv[1:]
sys.argv = [name, "--help"]
code = None
try:
    getattr(importlib.import_module(module), function)()
except SystemExit as leave:
    code = leave.code
heavy = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "cv2", "scipy", "sklearn")
print("exit", code or 0, "heavy", [name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_command_answers_help_without_loading_anything_heavy(name: str) -> None:
    module, function = SCRIPTS[name].split(":")
    done = run_program(
        [sys.executable, "-c", HELP, module, function, name],
        env=PLAIN,
        capture_output=True,
        text=True,
        check=True,
    )
    *shown, last = done.stdout.splitlines()
    assert last == "exit 0 heavy []"
    assert f"Usage: {name}" in "\n".join(shown)
    assert done.stderr == ""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_command_is_installed_and_answers_help(name: str) -> None:
    script = shutil.which(name, path=str(Path(sys.executable).parent))
    assert script, f"{name} is not installed: make .venv/.installed-dev"
    done = run_program([script, "--help"], env=PLAIN, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Usage:" in done.stdout


def test_help_keeps_defaults_in_brackets() -> None:
    """Rich would take them for markup and drop them."""
    script = Path(sys.executable).with_name("export-model")
    done = run_program([script, "--help"], env=PLAIN, capture_output=True, text=True, check=True)
    assert "[default: five folds]" in " ".join(done.stdout.split())


def test_the_installed_package_is_this_project() -> None:
    installed = {
        point.name: point.value
        for point in entry_points(group="console_scripts")
        if point.value.startswith("patchline.")
    }
    assert installed == SCRIPTS
    assert version("patchline") == PROJECT["project"]["version"]


def test_the_version_is_the_changelogs_newest() -> None:
    changelog = ROOT / "CHANGELOG.md"
    if not changelog.is_file():
        pytest.skip("there is no CHANGELOG.md yet")
    headings = re.findall(r"^## (.+)$", changelog.read_text(encoding="utf-8"), re.MULTILINE)
    versions = [
        found[1]
        for heading in headings
        if (found := re.match(r"\[?(\d+\.\d+\.\d+\S*?)\]?(?:\s|$)", heading))
    ]
    assert versions[:1] == [PROJECT["project"]["version"]]
