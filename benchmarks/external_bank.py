"""``python -m patchline.benchmarks.external_bank``: what a bank beside the graph costs.

One detector is exported twice: with its memory bank in the graph, where ONNX Runtime may prepare it
once for the search, and with the bank as an input, which is made a value of ONNX Runtime once.
Both judge the same frame in turn on the CPU, one frame at a time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import typer
from rich.console import Console

from patchline.benchmarks.report import alternate, pair_ratios, summarize, write_result
from patchline.export.backbone import PatchEmbedder
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.external_bank import ExternalDetector, bank_tensors, graph_inputs
from patchline.export.onnx_graph import save_onnx, to_onnx
from patchline.export.scores import DEFAULT_SCORE
from patchline.runtime import contract
from patchline.runtime.cli.command import run_command
from patchline.runtime.contract import DistanceStatistics, ModelSize
from patchline.runtime.errors import ParityError

NEIGHBORS = 9
EMBEDDED, EXTERNAL = "embedded", "external"
SEED = 0
"""Of bank and frame."""

_LARGEST_ERROR = 1e-3
"""Relative; two graphs that compute different things are not worth timing."""


def benchmark_external_bank(
    backbone: Annotated[str, typer.Option(help="timm backbone, untrained.")] = "resnet18",
    bank_rows: Annotated[
        list[int] | None,
        typer.Option(min=NEIGHBORS, help="Rows of the memory bank.  [default: 2048, 20480]"),
    ] = None,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    score: Annotated[str, typer.Option(help="Score function.")] = DEFAULT_SCORE,
    rounds: Annotated[int, typer.Option(min=2, help="Timed inferences of each graph.")] = 200,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Time both graphs alternately for each bank and write medians and their ratio."""
    console = Console(highlight=False)
    size = ModelSize(height=image_size, width=image_size)
    embedder = PatchEmbedder(backbone, size, "random")
    frame = np.random.default_rng(SEED).integers(0, 256, (1, image_size, image_size, 3), np.uint8)
    banks = {}
    for rows in bank_rows or [2048, 20480]:
        detector = Detector(embedder, _head(embedder, size, rows, score))
        banks[str(rows)] = _compare(detector, size, frame, rounds, threads)
    results: dict[str, Any] = {
        "backbone": backbone,
        "dimension": embedder.dimension,
        "image_size_px": image_size,
        "score": score,
        "batch": 1,
        "seed": SEED,
        "threads": threads or "one per core",
        "engine": f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider",
        "banks": banks,
    }
    path = write_result(f"external-bank-{backbone}", results, out)
    console.print_json(data=results)
    console.print(f"written to {path}")


def _head(embedder: PatchEmbedder, size: ModelSize, rows: int, score: str) -> AnomalyHead:
    bank = torch.randn(rows, embedder.dimension, generator=torch.Generator().manual_seed(SEED))
    statistics_ = DistanceStatistics(mean=1.0, std=0.1)
    return AnomalyHead(bank, statistics_, embedder.grid, size, score=score, neighbors=NEIGHBORS)


def _compare(
    detector: Detector, size: ModelSize, frame: npt.NDArray[np.uint8], rounds: int, threads: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        whole, graph = (Path(folder) / f"{name}.onnx" for name in (EMBEDDED, EXTERNAL))
        save_onnx(to_onnx(detector, size), whole)
        save_onnx(to_onnx(ExternalDetector(detector), size, graph_inputs(detector.head)), graph)
        tensors = bank_tensors(detector.head)
        bank = {name: onnxruntime.OrtValue.ortvalue_from_numpy(tensors[name]) for name in tensors}
        runs = {
            EMBEDDED: _Runner(whole, threads, frame, {}),
            EXTERNAL: _Runner(graph, threads, frame, bank),
        }
        error = _difference(runs[EMBEDDED](), runs[EXTERNAL]())
        times_ms = alternate(runs, rounds=rounds, warmup=max(2, rounds // 10))
        files = {name: path.stat().st_size for name, path in ((EMBEDDED, whole), (EXTERNAL, graph))}
    return {
        "graphs": {name: summarize(times) for name, times in times_ms.items()},
        "external_over_embedded": pair_ratios(times_ms[EXTERNAL], times_ms[EMBEDDED]),
        "largest_relative_error": error,
        "file_bytes": files,
        "bank_bytes": sum(array.nbytes for array in tensors.values()),
    }


class _Runner:
    """One graph, ready to judge one frame."""

    def __init__(
        self, path: Path, threads: int, frame: npt.NDArray[np.uint8], bank: dict[str, Any]
    ) -> None:
        self._session = _session(path, threads)
        self._given = {contract.FRAMES: onnxruntime.OrtValue.ortvalue_from_numpy(frame), **bank}

    def __call__(self) -> list[npt.NDArray[np.float32]]:
        outputs = self._session.run_with_ort_values(list(contract.OUTPUTS), self._given)
        return [value.numpy() for value in outputs]


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin after a run would slow the other graph, which is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _difference(
    expected: list[npt.NDArray[np.float32]], found: list[npt.NDArray[np.float32]]
) -> float:
    """The largest difference of any output, relative to its largest value.

    Raises:
        ParityError: it is no rounding.
    """
    errors = [
        float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(expected, found, strict=True)
    ]
    if not max(errors) <= _LARGEST_ERROR:
        raise ParityError(
            f"the two graphs differ by {max(errors):.2g}, at most {_LARGEST_ERROR:g} is rounding"
        )
    return max(errors)


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.external_bank``."""
    run_command(benchmark_external_bank)


if __name__ == "__main__":
    main()
