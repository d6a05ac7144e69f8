"""``python -m patchline.benchmarks.search``: exact and pruned search of the bank, whole frames.

One detector is exported with either search, for banks of many sizes, and both judge the same frame
in turn. Where the pruned search begins to pay is the crossover that ``export-model --search auto``
goes by. The rows are drawn, with coordinates that matter less and less; what the search finds in
real banks is :mod:`patchline.benchmarks.search_agreement`'s to say.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import torch
import typer
from rich.console import Console
from torch import Tensor

from patchline.benchmarks.report import alternate, pair_ratios, summarize, write_result
from patchline.export.backbone import PatchEmbedder
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.onnx_graph import save_onnx, to_onnx
from patchline.export.pruned import default_plan, with_pruned_search
from patchline.export.scores import DEFAULT_SCORE
from patchline.runtime import contract
from patchline.runtime.cli.command import run_command, stderr_console
from patchline.runtime.contract import DistanceStatistics, ModelSize, PrunedSearch
from patchline.runtime.preprocess import Frame
from patchline.runtime.progress import ConsoleSteps

NEIGHBORS = 9
SEED = 0
"""Of bank and frame."""

BANK_ROWS = (2048, 4096, 8192, 16384, 20480, 65536)


def benchmark_search(
    backbone: Annotated[str, typer.Option(help="timm backbone, untrained.")] = "resnet18",
    bank_rows: Annotated[
        list[int] | None,
        typer.Option(min=NEIGHBORS, help="Rows of the memory bank.  [default: 2048 to 65536]"),
    ] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    rounds: Annotated[int, typer.Option(min=2, help="Timed inferences of each graph.")] = 60,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Time both searches alternately for each bank; write medians, ratios and the crossover."""
    embedder = PatchEmbedder(backbone, ModelSize(height=image_size, width=image_size), "random")
    plan = default_plan(embedder.dimension, NEIGHBORS)
    frame = np.random.default_rng(SEED).integers(0, 256, (1, image_size, image_size, 3), np.uint8)
    sizes, banks = sorted(bank_rows or BANK_ROWS), []
    with ConsoleSteps(stderr_console()).step("Timing both searches", len(sizes)) as advance:
        for done, rows in enumerate(sizes, 1):
            banks.append(_compare(_detector(embedder, rows), plan, frame, rounds, threads))
            advance(done)
    results: dict[str, Any] = {
        "backbone": backbone,
        "dimension": embedder.dimension,
        "leading_coordinates": plan.leading,
        "candidates": plan.candidates,
        "image_size_px": image_size,
        "batch": 1,
        "seed": SEED,
        "threads": threads or "one per core",
        "engine": f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider",
        "banks": banks,
        "crossover_rows": crossover(sizes, [bank["pruned_over_exact"]["median"] for bank in banks]),
    }
    path = write_result(f"search-{backbone}", results, out)
    console = Console(highlight=False)
    console.print_json(data=results)
    console.print(f"written to {path}")


def crossover(rows: Sequence[int], ratios: Sequence[float]) -> int | str:
    """Rows from which on the pruned search takes less time, between the sizes by logarithms.

    Args:
        rows: ascending sizes of banks.
        ratios: time of the pruned search in parts of the exact one's, for each.

    Returns:
        A number of rows; or a sentence, where the pruned search is ahead or behind at every size.
    """
    behind = [at for at, ratio in enumerate(ratios) if ratio >= 1]
    if not behind:
        return f"below {rows[0]}"
    last = behind[-1]
    if last == len(rows) - 1:
        return f"above {rows[-1]}"
    share = (ratios[last] - 1) / (ratios[last] - ratios[last + 1])
    low, high = math.log(rows[last]), math.log(rows[last + 1])
    return round(math.exp(low + share * (high - low)))


def _detector(embedder: PatchEmbedder, rows: int) -> Detector:
    head = AnomalyHead(
        _bank(rows, embedder.dimension),
        DistanceStatistics(mean=1.0, std=0.1),
        embedder.grid,
        embedder.size,
        score=DEFAULT_SCORE,
        neighbors=NEIGHBORS,
    )
    return Detector(embedder, head)


def _bank(rows: int, dimension: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    decay = torch.arange(1, dimension + 1) ** -0.5
    return torch.randn(rows, dimension, generator=generator) * decay


def _compare(
    detector: Detector, plan: PrunedSearch, frame: Frame, rounds: int, threads: int
) -> dict[str, Any]:
    detectors = {"exact": detector, "pruned": with_pruned_search(detector, plan)}
    with tempfile.TemporaryDirectory(prefix="patchline-") as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in detectors}
        for name, path in paths.items():
            save_onnx(to_onnx(detectors[name], detector.embedder.size), path)
        files = {name: path.stat().st_size for name, path in paths.items()}
        runs = {name: _Runner(path, threads, frame) for name, path in paths.items()}
        times_ms = alternate(runs, rounds=rounds, warmup=max(2, rounds // 10))
    return {
        "bank_rows": detector.head.search.rows,
        "graphs": {name: summarize(times) for name, times in times_ms.items()},
        "pruned_over_exact": pair_ratios(times_ms["pruned"], times_ms["exact"]),
        "file_bytes": files,
    }


class _Runner:
    """One graph, ready to judge one frame."""

    def __init__(self, path: Path, threads: int, frame: Frame) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin after a run would slow the other graph, which is timed next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._given = {contract.FRAMES: frame}

    def __call__(self) -> object:
        return self._session.run(list(contract.OUTPUTS), self._given)


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.search``."""
    run_command(benchmark_search)


if __name__ == "__main__":
    main()
