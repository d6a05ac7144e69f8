"""The method of amazon-science/patchcore-inspection, measured again: FAISS, approximate coreset.

A worker of :mod:`patchline.benchmarks.peers`, written from what paper and repository say; needs
faiss-cpu besides what :mod:`worker_torch` needs. Its defaults: an exact FAISS index over squared
distances, one neighbour, the largest patch as the image score; a coreset on a random projection to
128, the first pick by the mean distance to ten random rows. Its frames are not cropped here, and
the features of a ResNet-18 are not widened to 1024 as the repository does it, which is slower.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import faiss  # type: ignore[import-not-found]
import numpy as np
import torch
import torch.nn.functional as F
import worker_torch as plain  # type: ignore[import-not-found]

PACKAGES = [*plain.PACKAGES, "faiss-cpu"]
COMMANDS = ["load", "make", "fit", "coreset"]

WIDTH = 1024
STARTS = 10

_model: dict[str, Any] = {}


def load(folder: str, threads: int) -> dict[str, Any]:
    """Load a model that :func:`make` or :func:`fit` wrote."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    made = json.loads((Path(folder) / "model.json").read_text())
    plain._model.update(made)
    _model["embedder"] = plain.Embedder(made["backbone"], str(Path(folder) / "backbone.pth"))
    _model["index"] = faiss.read_index(str(Path(folder) / "bank.faiss"))
    return {}


read = plain.read


@torch.inference_mode()
def judge(frame: Any) -> tuple[float, Any]:
    """Image score and map of uint8 ``[H, W, 3]`` BGR."""
    embeddings = _model["embedder"](torch.from_numpy(frame).unsqueeze(0))
    rows = pooled(plain.rows_of(embeddings)).contiguous().numpy()
    squares, _ = _model["index"].search(rows, 1)
    nearest = torch.from_numpy(squares).mean(1)
    scores = nearest.view(embeddings.shape[2:])
    return float(nearest.max()), plain.to_map(scores, frame.shape[:2])


def pooled(rows: torch.Tensor) -> torch.Tensor:
    """Rows wider than 1024 averaged to that width."""
    return rows if rows.shape[1] <= WIDTH else F.adaptive_avg_pool1d(rows.unsqueeze(1), WIDTH)[:, 0]


def make(folder: str, backbone: str, state: str, bank: str, image_px: int) -> dict[str, Any]:
    """Write a model whose memory bank is given as an ``.npy`` file."""
    _write(Path(folder), backbone, state, np.load(bank), image_px)
    return {}


@torch.inference_mode()
def fit(
    folder: str,
    pictures: list[str],
    backbone: str,
    state: str,
    image_px: int,
    ratio: float,
    threads: int,
) -> dict[str, Any]:
    """Embed good pictures, choose the bank, write the model."""
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    started = time.perf_counter()
    rows = pooled(plain.embed(pictures, backbone, state, image_px))
    embedded = time.perf_counter()
    bank = rows[pick(rows, int(len(rows) * ratio))]
    chosen = time.perf_counter()
    _write(Path(folder), backbone, state, bank.numpy(), image_px)
    return {
        "embed_s": embedded - started,
        "coreset_s": chosen - embedded,
        "fit_s": time.perf_counter() - started,
        "bank_rows": len(bank),
    }


@torch.inference_mode()
def coreset(rows: str, picks: int, threads: int) -> dict[str, Any]:
    """Time the choice of so many rows of an ``.npy`` file ``[N, D]``, its reading left out."""
    torch.set_num_threads(threads)
    values = torch.from_numpy(np.load(rows))
    started = time.perf_counter()
    picked = pick(values, picks)
    return {"coreset_s": time.perf_counter() - started, "picks": len(picked)}


def pick(rows: torch.Tensor, count: int) -> list[int]:
    """The approximate greedy: distances of all rows to the last pick, by one product each."""
    torch.manual_seed(0)
    projected = torch.nn.Linear(rows.shape[1], 128, bias=False)(rows)
    norms = projected.square().sum(1)

    def distances(centers: torch.Tensor) -> torch.Tensor:
        squares: torch.Tensor = (
            norms[:, None] + norms[centers] - 2 * projected @ projected[centers].t()
        )
        return squares.clamp_min_(0).sqrt_()

    starts = torch.randperm(len(rows))[: min(STARTS, len(rows))]
    nearest = distances(starts).mean(1)
    picks: list[int] = []
    while len(picks) < count:
        chosen = nearest.argmax().view(1)
        picks.append(int(chosen))
        nearest = torch.minimum(nearest, distances(chosen)[:, 0])
    return picks


def _write(folder: Path, backbone: str, state: str, bank: Any, image_px: int) -> None:
    plain.write(folder, backbone, state, bank[:0], image_px)
    (folder / "bank.npy").unlink()
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(np.ascontiguousarray(bank))
    faiss.write_index(index, str(folder / "bank.faiss"))
