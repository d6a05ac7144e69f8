"""Patchline's training side: a worker of :mod:`patchline.benchmarks.peers`.

It runs in the environment of the benchmark itself, which has ``patchline[export]``. Besides its own
models it makes what all share: a state dict, patch embeddings and frames.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # noqa: F401  the export verifies its file with it
import torch
from torch import Tensor, nn

from patchline.export.backbone import PatchEmbedder
from patchline.export.config import FitSettings, make_settings
from patchline.export.coreset import greedy_coreset, random_projection
from patchline.export.datasets import GoodPictures
from patchline.export.exporter import export_model
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel
from patchline.export.fit import fit as fit_model
from patchline.export.precision.again import Job, fitted_again
from patchline.export.state import TrainingState, load_state, state_path
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ImageReadError
from patchline.runtime.progress import SilentSteps

PACKAGES = ["patchline", "torch", "timm", "onnxruntime", "numpy"]
COMMANDS = ["material", "make", "fit", "coreset", "rescore"]

NAME = "model"
FEW = 6


def material(
    folder: str,
    backbone: str,
    weights: str,
    pictures: list[str],
    images: int,
    frames: list[str],
    image_px: int,
    threads: int,
    settling: int = 0,
) -> dict[str, Any]:
    """Write what all peers share of one backbone.

    Args:
        folder: gets ``state.pth``, ``rows-D.npy`` (``[N, D]``, at the full width and at
            Patchline's own) and ``frames.npy``.
        backbone: of timm.
        weights: a file, or ``random``.
        pictures: good pictures.
        images: so many of them are embedded.
        frames: pictures to judge.
        image_px: side of the frames.
        threads: of PyTorch.
        settling: so many pictures settle an untrained backbone.
    """
    torch.set_num_threads(threads)
    out, size = Path(folder), ModelSize(height=image_px, width=image_px)
    out.mkdir(parents=True, exist_ok=True)
    embedder = PatchEmbedder(backbone, size, weights)
    if settling:
        _settle(embedder, tuple(map(Path, pictures[:settling])), size)
    torch.save(embedder.network.state_dict(), out / "state.pth")
    np.save(out / "frames.npy", read_frames(tuple(map(Path, frames)), size))
    pool, embedder.pool = embedder.pool, nn.Identity()
    rows = torch.cat(list(_embedded(embedder, tuple(map(Path, pictures[:images])), size)))
    narrow = rows if isinstance(pool, nn.Identity) else _pooled(pool, rows)
    for values in {id(rows): rows, id(narrow): narrow}.values():
        np.save(out / f"rows-{values.shape[1]}.npy", values.numpy())
    return {"rows": len(rows), "width": rows.shape[1], "own_width": narrow.shape[1]}


def make(
    folder: str,
    backbone: str,
    state: str,
    bank: str,
    image_px: int,
    score: str,
    pictures: list[str],
) -> dict[str, Any]:
    """Export a model whose memory bank is given as an ``.npy`` file.

    A fit on a few pictures gives the rest of it; then it is made again with the bank in place.
    """
    settings = _settings(backbone, state, image_px, 0.1, score)
    good = _good(pictures[:FEW])
    with tempfile.TemporaryDirectory() as temporary:
        path = export_model(_fitted(good, settings), settings, Path(temporary), SilentSteps())
        fitted = load_state(state_path(path))
    bank_rows = torch.from_numpy(np.load(bank))
    _export_again(replace(fitted, memory_bank=bank_rows, row_pictures=None), good, settings, folder)
    return {}


def fit(
    folder: str,
    pictures: list[str],
    backbone: str,
    state: str,
    image_px: int,
    ratio: float,
    threads: int,
) -> dict[str, Any]:
    """Fit and export as ``export-model`` does, its held-out threshold and its checks included."""
    torch.set_num_threads(threads)
    settings = _settings(backbone, state, image_px, ratio, None)
    started = time.perf_counter()
    fitted = _fitted(_good(pictures), settings)
    done = time.perf_counter()
    export_model(fitted, settings, Path(folder), SilentSteps())
    return {
        "export_s": time.perf_counter() - done,
        "fit_s": time.perf_counter() - started,
        "bank_rows": len(fitted.memory_bank),
    }


def rescore(
    folder: str, out: str, score: str, pictures: list[str], backbone: str, state: str, image_px: int
) -> dict[str, Any]:
    """Export the bank of a fitted model with another score."""
    fitted = load_state(state_path(Path(folder) / f"{NAME}.onnx"))
    settings = _settings(backbone, state, image_px, 0.1, score)
    manifest = fitted.manifest.model_copy(update={"score": score})
    _export_again(replace(fitted, manifest=manifest), _good(pictures), settings, out)
    return {}


@torch.inference_mode()
def coreset(rows: str, picks: int, threads: int) -> dict[str, Any]:
    """Time the choice of so many rows of an ``.npy`` file ``[N, D]``, its reading left out."""
    torch.set_num_threads(threads)
    values = torch.from_numpy(np.load(rows))
    started = time.perf_counter()
    matrix = random_projection(values.shape[1], 0)
    picked = greedy_coreset(values if matrix is None else values @ matrix, picks, seed=0)
    return {"coreset_s": time.perf_counter() - started, "picks": len(picked.indices)}


def _settings(
    backbone: str, weights: str, image_px: int, ratio: float, score: str | None
) -> FitSettings:
    return make_settings(
        {
            "backbone": backbone,
            "weights": weights,
            "image_size": (image_px, image_px),
            "coreset_ratio": ratio,
            "score": score,
            "device": "cpu",
        }
    )


def _good(pictures: list[str]) -> GoodPictures:
    paths = tuple(map(Path, pictures))
    return GoodPictures(NAME, paths[0].parent, paths)


def _fitted(good: GoodPictures, settings: FitSettings) -> FittedModel:
    return fit_model(good, settings, SilentSteps(), _refuse)


def _export_again(
    state: TrainingState, good: GoodPictures, settings: FitSettings, out: str
) -> None:
    fitted = fitted_again(Job(good, settings, state), _refuse)
    export_model(fitted, settings, Path(out), SilentSteps())


@torch.inference_mode()
def _settle(embedder: PatchEmbedder, paths: tuple[Path, ...], size: ModelSize) -> None:
    """Give the batch norms of an untrained backbone a scale of one and statistics of pictures.

    timm begins residual branches at zero, where hundreds of patches are all but equal: neighbours
    would then be a matter of rounding.
    """
    norms = [part for part in embedder.network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.ones_(norm.weight)
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    for _ in _embedded(embedder, paths, size):
        pass
    embedder.network.eval()


@torch.inference_mode()
def _embedded(
    embedder: PatchEmbedder, paths: tuple[Path, ...], size: ModelSize
) -> Iterator[Tensor]:
    for start in range(0, len(paths), 8):
        frames = torch.from_numpy(read_frames(paths[start : start + 8], size))
        yield embedder(frames).flatten(0, 2)


def _pooled(pool: nn.Module, rows: Tensor) -> Tensor:
    parts = [pool(part[:, :, None, None])[:, :, 0, 0] for part in torch.split(rows, 4096)]
    return torch.cat(parts)


def _refuse(error: ImageReadError) -> None:
    raise error
