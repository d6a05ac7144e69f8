"""``python -m patchline.benchmarks.latency``: what the head costs beside the backbone.

Two exported graphs run in turn in ONNX Runtime on the CPU, one frame at a time: the whole model,
and the backbone with its patch embedding alone. The head is the difference, pair by pair. All times
are kept, so that :mod:`patchline.benchmarks.charts` can draw how they are spread.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import torch
import typer
from rich.console import Console
from torch import Tensor, nn

from patchline.benchmarks.report import alternate, summarize, write_result
from patchline.export.backbone import PatchEmbedder
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.onnx_graph import save_onnx, to_onnx
from patchline.export.scores import DEFAULT_SCORE
from patchline.runtime import contract
from patchline.runtime.benchmark.stats import percentile
from patchline.runtime.cli.command import run_command
from patchline.runtime.contract import DistanceStatistics, ModelSize

PERCENTILES = (90, 95, 99)


class BackboneOnly(nn.Module):
    """The embedder with outputs small enough not to be what is measured."""

    def __init__(self, embedder: PatchEmbedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B]``, ``[B, h, w]``, ``[B, h, w]``."""
        embeddings = self.embedder(frames)
        return embeddings.mean((1, 2, 3)), embeddings.mean(3), embeddings.amax(3)


def benchmark_latency(
    backbone: Annotated[str, typer.Option(help="timm backbone, untrained.")] = "resnet18",
    bank_rows: Annotated[int, typer.Option(min=9, help="Rows of the memory bank.")] = 2048,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    score: Annotated[str, typer.Option(help="Score function.")] = DEFAULT_SCORE,
    rounds: Annotated[int, typer.Option(min=2, help="Timed inferences of each graph.")] = 500,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Time whole model and backbone alternately and write medians and the head's share."""
    console = Console(highlight=False)
    size = ModelSize(height=image_size, width=image_size)
    embedder = PatchEmbedder(backbone, size, "random")
    bank = torch.randn(bank_rows, embedder.dimension, generator=torch.Generator().manual_seed(0))
    statistics_ = DistanceStatistics(mean=1.0, std=0.1)
    head = AnomalyHead(bank, statistics_, embedder.grid, size, score=score, neighbors=9)
    frame = np.random.default_rng(0).integers(0, 256, (1, image_size, image_size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        graphs = {"model": Detector(embedder, head), "backbone": BackboneOnly(embedder)}
        runs = {
            name: _runner(module, size, Path(folder) / f"{name}.onnx", threads, frame)
            for name, module in graphs.items()
        }
        times_ms = alternate(runs, rounds=rounds, warmup=max(2, rounds // 10))
    times_ms = {name: [round(time, 3) for time in times] for name, times in times_ms.items()}
    pairs = list(zip(times_ms["model"], times_ms["backbone"], strict=True))
    share = statistics.median(whole / alone - 1 for whole, alone in pairs)
    results: dict[str, Any] = {
        "backbone": backbone,
        "bank_rows": bank_rows,
        "dimension": embedder.dimension,
        "image_size_px": image_size,
        "score": score,
        "batch": 1,
        "threads": threads or "one per core",
        "engine": f"ONNX Runtime {onnxruntime.__version__}, CPUExecutionProvider",
        "graphs": {name: spread(times) for name, times in times_ms.items()},
        "head_over_backbone": round(share, 3),
        "head": spread([whole - alone for whole, alone in pairs]),
        "samples_ms": times_ms,
    }
    path = write_result(f"latency-{backbone}-{bank_rows}", results, out)
    console.print_json(data={name: part for name, part in results.items() if name != "samples_ms"})
    console.print(f"written to {path}")


def spread(times_ms: list[float]) -> dict[str, float]:
    """Median, quartiles and tail of times in milliseconds.

    The percentiles are times that were measured: the smallest that so many do not exceed.
    """
    ordered = sorted(times_ms)
    tail = {f"p{percent}_ms": round(percentile(ordered, percent), 3) for percent in PERCENTILES}
    return summarize(ordered) | tail


def _runner(module: nn.Module, size: ModelSize, path: Path, threads: int, frame: Any) -> Any:
    save_onnx(to_onnx(module.eval(), size), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin after a run would slow the other graph, which is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {contract.FRAMES: frame})


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.latency``."""
    run_command(benchmark_latency)


if __name__ == "__main__":
    main()
