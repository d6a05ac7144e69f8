"""Plain PatchCore in PyTorch (Roth et al., CVPR 2022): ``cdist``, ``topk``, the naive coreset.

A worker of :mod:`patchline.benchmarks.peers`; needs torch, torchvision, NumPy and Pillow. The
image score is the largest distance of a patch, the map is enlarged and smoothed (sigma 4).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision  # type: ignore[import-untyped]
from PIL import Image

PACKAGES = ["torch", "torchvision", "numpy", "pillow"]
COMMANDS = ["load", "make", "fit", "coreset"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIGMA = 4.0

_model: dict[str, Any] = {}


class Embedder(torch.nn.Module):
    """Layers 2 and 3, averaged over 3x3, joined on the finer grid: ``[B, D, h, w]``.

    Args:
        backbone: of torchvision.
        state: file with its state dict; layers past the third may be missing.
    """

    def __init__(self, backbone: str, state: str) -> None:
        super().__init__()
        self.network = getattr(torchvision.models, _NAMES[backbone])(weights=None)
        del self.network.layer4, self.network.fc
        own = self.network.state_dict()
        given = torch.load(state, weights_only=True)
        self.network.load_state_dict({name: given[name] for name in own})
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.eval()

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Embed uint8 ``[B, H, W, 3]`` BGR."""
        pixels = frames.permute(0, 3, 1, 2).flip(1).float().div(255)
        x = (pixels - self.get_buffer("mean")) / self.get_buffer("std")
        net = self.network
        x = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
        fine = net.layer2(x)
        coarse = F.avg_pool2d(net.layer3(fine), 3, 1, 1)
        coarse = F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([F.avg_pool2d(fine, 3, 1, 1), coarse], 1)


_NAMES = {"resnet18": "resnet18", "wide_resnet50_2": "wide_resnet50_2"}


def rows_of(embeddings: torch.Tensor) -> torch.Tensor:
    """``[B, D, h, w]`` -> ``[B * h * w, D]``."""
    return embeddings.permute(0, 2, 3, 1).flatten(0, 2)


def load(folder: str, threads: int) -> dict[str, Any]:
    """Load a model that :func:`make` or :func:`fit` wrote."""
    torch.set_num_threads(threads)
    made = json.loads((Path(folder) / "model.json").read_text())
    _model.update(made)
    _model["embedder"] = Embedder(made["backbone"], str(Path(folder) / "backbone.pth"))
    _model["bank"] = torch.from_numpy(np.load(Path(folder) / "bank.npy"))
    return {}


def read(path: str) -> Any:
    """A picture file as a frame at model size, shrunk by Pillow (bilinear, no aliasing)."""
    side = _model["image_px"]
    image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


@torch.inference_mode()
def judge(frame: Any) -> tuple[float, Any]:
    """Image score and map of uint8 ``[H, W, 3]`` BGR."""
    embeddings = _model["embedder"](torch.from_numpy(frame).unsqueeze(0))
    distances = torch.cdist(rows_of(embeddings), _model["bank"])
    nearest = distances.topk(1, largest=False).values[:, 0]
    return float(nearest.max()), to_map(nearest.view(embeddings.shape[2:]), frame.shape[:2])


def to_map(patch_scores: torch.Tensor, size: tuple[int, int]) -> Any:
    """Enlarge ``[h, w]`` to ``size`` and smooth it: ``[H, W]``."""
    scores = F.interpolate(patch_scores[None, None], size=size, mode="bilinear")
    radius = int(4 * SIGMA + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    mode = "reflect" if min(size) > radius else "replicate"
    padded = F.pad(scores, (radius,) * 4, mode=mode)
    smooth = F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return smooth[0, 0].numpy()


def make(folder: str, backbone: str, state: str, bank: str, image_px: int) -> dict[str, Any]:
    """Write a model whose memory bank is given as an ``.npy`` file."""
    write(Path(folder), backbone, state, np.load(bank), image_px)
    return {}


def write(folder: Path, backbone: str, state: str, bank: Any, image_px: int) -> None:
    """The files of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    embedder = Embedder(backbone, state)
    torch.save(embedder.network.state_dict(), folder / "backbone.pth")
    np.save(folder / "bank.npy", bank)
    made = {"backbone": backbone, "image_px": image_px}
    (folder / "model.json").write_text(json.dumps(made))


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
    started = time.perf_counter()
    rows = embed(pictures, backbone, state, image_px)
    embedded = time.perf_counter()
    bank = rows[pick(rows, int(len(rows) * ratio))]
    chosen = time.perf_counter()
    write(Path(folder), backbone, state, bank.numpy(), image_px)
    return {
        "embed_s": embedded - started,
        "coreset_s": chosen - embedded,
        "fit_s": time.perf_counter() - started,
        "bank_rows": len(bank),
    }


def embed(pictures: list[str], backbone: str, state: str, image_px: int) -> torch.Tensor:
    """Patch embeddings of picture files, ``[N, D]``, eight pictures at a time."""
    _model["image_px"] = image_px
    embedder = Embedder(backbone, state)
    parts = []
    for start in range(0, len(pictures), 8):
        frames = np.stack([read(path) for path in pictures[start : start + 8]])
        parts.append(rows_of(embedder(torch.from_numpy(frames))))
    return torch.cat(parts)


@torch.inference_mode()
def coreset(rows: str, picks: int, threads: int) -> dict[str, Any]:
    """Time the choice of so many rows of an ``.npy`` file ``[N, D]``, its reading left out."""
    torch.set_num_threads(threads)
    values = torch.from_numpy(np.load(rows))
    started = time.perf_counter()
    picked = pick(values, picks)
    return {"coreset_s": time.perf_counter() - started, "picks": len(picked)}


def pick(rows: torch.Tensor, count: int) -> list[int]:
    """The textbook greedy on a random projection to 128: every row is read for every pick."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(rows.shape[1], 128, generator=generator) / 128**0.5
    projected = rows @ matrix
    chosen = int(torch.randint(len(rows), (1,), generator=generator))
    nearest = torch.full((len(rows),), torch.inf)
    picks = [chosen]
    while len(picks) < count:
        distances = torch.cdist(projected, projected[chosen : chosen + 1])[:, 0]
        nearest = torch.minimum(nearest, distances)
        nearest[chosen] = -1
        chosen = int(nearest.argmax())
        picks.append(chosen)
    return picks
