"""One virtual environment per peer, made once from pinned requirements and then reused."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from patchline.benchmarks.peers.catalogue import BENCHMARK, OWN
from patchline.runtime.errors import ConfigurationError, EngineError

PINS = Path("benchmarks/peers/requirements")
"""Seen from the root of a checkout, which is what is measured."""

_SOURCES = ("benchmarks", "calibration", "export", "runtime")
_FILES = ("pyproject.toml", "README.md", "LICENSE")
_MARKER = "made-from.txt"

Run = Callable[[list[str], Path], None]
"""Runs a command with its output in a file."""


def run_logged(command: list[str], log: Path) -> None:
    """Run a command; what it says goes to ``log``.

    Raises:
        EngineError: it fails; the last line it wrote is named.
    """
    with log.open("a") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["nothing was said"]
        raise EngineError(f"{Path(command[0]).name} {command[2]} failed: {lines[-1]}")


@dataclass
class Environments:
    """Finds or makes the Python of an environment.

    Attributes:
        work: folder that keeps them.
        given: Pythons to use as they are, by environment.
        run: runs ``venv`` and ``pip``.
    """

    work: Path
    given: Mapping[str, Path] = field(default_factory=dict)
    run: Run = run_logged
    _checked: set[str] = field(default_factory=set)

    def python(self, name: str) -> Path:
        """The Python of an environment, which is made where it is missing or of other pins.

        Raises:
            ConfigurationError: there are no pins for it here.
            EngineError: it cannot be made.
        """
        if name in self.given:
            return self.given[name]
        if name == BENCHMARK:
            return Path(sys.executable)
        pins = PINS / f"{name}.txt"
        if not pins.is_file():
            raise ConfigurationError(
                f"{pins} does not exist. Run this from the root of a checkout of Patchline"
            )
        folder = self.folder(name)
        if name not in self._checked:
            marker, made_from = folder / _MARKER, _fingerprint(name, pins)
            if not marker.is_file() or marker.read_text() != made_from:
                self._make(name, pins)
                marker.write_text(made_from)
            self._checked.add(name)  # one run measures one state of the code
        return _python_of(folder)

    def folder(self, name: str) -> Path:
        """Where an environment lies; absolute, because its workers run elsewhere."""
        return (self.work / "environments" / name).resolve()

    def _make(self, name: str, pins: Path) -> None:
        folder = self.folder(name)
        if folder.exists():
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        log = folder.parent / f"{name}.log"
        log.unlink(missing_ok=True)
        self.run([sys.executable, "-m", "venv", str(folder)], log)
        install = [str(_python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check"]
        self.run([*install, "--requirement", str(pins)], log)
        if name == OWN:
            with tempfile.TemporaryDirectory() as copy:
                _copy_sources(Path(copy))
                self.run([*install, f"{copy}[cpu]"], log)


def _python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def _fingerprint(name: str, pins: Path) -> str:
    """Changes with the pins, and with the code where it is Patchline that is installed."""
    digest = hashlib.sha256(pins.read_bytes())
    for file in _own_files() if name == OWN else []:
        digest.update(file.as_posix().encode() + file.read_bytes())
    return f"Python {sys.version.split()[0]}, {digest.hexdigest()}\n"


def _own_files() -> list[Path]:
    runtime = (Path(folder).rglob("*") for folder in ("runtime", "calibration"))
    kept = (path for found in runtime for path in found if path.is_file())
    return [Path("pyproject.toml"), *sorted(p for p in kept if "__pycache__" not in p.parts)]


def _copy_sources(folder: Path) -> None:
    """A build in the checkout would leave its traces beside the editable install's links."""
    ignored = shutil.ignore_patterns("__pycache__", "results")
    for name in _SOURCES:
        shutil.copytree(name, folder / name, ignore=ignored)
    for name in _FILES:
        shutil.copy(name, folder / name)
