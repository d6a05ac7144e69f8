"""Running one benchmark at a tiny size; what it writes holds the schema."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from patchline.benchmarks.schema import check_file
from tests.programs import run_program

TINY = ("--backbone", "resnet18", "--weights", "random", "--image-size", "64")


def smoke(module: str, out: Path, *words: object) -> dict[str, Any]:
    """Run ``python -m patchline.benchmarks.<module>`` into ``out`` and give its one result."""
    program = [sys.executable, "-m", f"patchline.benchmarks.{module}", *map(str, words)]
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    run_program([*program, "--out", str(out)], check=True, **said)
    return only_result(out)


def only_result(folder: Path) -> dict[str, Any]:
    """The results of the one file below ``folder``."""
    (path,) = folder.rglob("*.json")
    result = check_file(path)
    assert result.run is not None
    return result.results
