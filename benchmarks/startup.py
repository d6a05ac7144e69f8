"""``python -m patchline.benchmarks.startup``: how long commands and imports take to be there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from patchline.benchmarks.report import alternate, summarize, write_result
from patchline.runtime.cli.command import run_command

_MAIN = "import sys; sys.argv = ['{0}', '--help']; from {1} import main; main()"
STARTS = {
    "python alone": "pass",
    "run-camera --help": _MAIN.format("run-camera", "patchline.runtime.cli.run_camera"),
    "export-model --help": _MAIN.format("export-model", "patchline.export.cli.export_model"),
    "import patchline.runtime.contract": "import patchline.runtime.contract",
    "import patchline.runtime.preprocess": "import patchline.runtime.preprocess",
    "import patchline.runtime.engine": "import patchline.runtime.engine",
    "import patchline.runtime.line.inspection": "import patchline.runtime.line.inspection",
}


def benchmark_startup(
    rounds: Annotated[int, typer.Option(min=1, help="Timed starts of each.")] = 15,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Start each in a fresh process, in turn, and write medians."""
    runs = {name: _starter(code) for name, code in STARTS.items()}
    times_ms = alternate(runs, rounds=rounds, warmup=1)
    results = {name: summarize(times) for name, times in times_ms.items()}
    path = write_result("startup", results, out)
    console = Console(highlight=False)
    console.print_json(data=results)
    console.print(f"written to {path}")


def _starter(code: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.startup``."""
    run_command(benchmark_startup)


if __name__ == "__main__":
    main()
