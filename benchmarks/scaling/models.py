"""Exported models of any size without a fit: an untrained backbone and a drawn memory bank.

Speed and memory are those of a fitted model of that size; scores mean nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from patchline.benchmarks.scaling.drawn import drawn_rows
from patchline.calibration.threshold import normal_scores, threshold_of_fit
from patchline.export.backbone import PatchEmbedder
from patchline.export.config import FitSettings
from patchline.export.datasets import GoodPictures
from patchline.export.describe import describe
from patchline.export.detector import AnomalyHead, Detector, Outputs
from patchline.export.fit import FittedModel
from patchline.export.memory import MemoryPlan
from patchline.export.onnx_graph import save_onnx, set_metadata, to_onnx
from patchline.export.pruned import default_plan, with_pruned_search
from patchline.export.search import SearchChoice
from patchline.runtime.contract import (
    METADATA_KEY,
    DistanceStatistics,
    Manifest,
    ModelSize,
    OnnxFile,
    TrainingSet,
    manifest_path,
    model_digest,
)
from patchline.runtime.errors import ConfigurationError

SEARCHES = ("exact", "pruned")
"""The ways to search that there are, as ``--search`` names them."""

_STATISTICS = DistanceStatistics(mean=1.0, std=0.1)


class SearchOnly(nn.Module):
    """The search alone, behind the contract's names: one frame is one grid of patches.

    The patches are drawn once and shifted by a pixel each, so that nothing can be computed before
    the frame is there.

    Args:
        head: whose search it is.
        grid: height and width of the patch grid, which is the size of the frames, too.
        dimension: of the patches.
    """

    def __init__(self, head: AnomalyHead, grid: tuple[int, int], dimension: int) -> None:
        super().__init__()
        self.search = head.search
        self.grid = grid
        self.register_buffer("patches", drawn_rows(grid[0] * grid[1], dimension, seed=1))

    def forward(self, frames: Tensor) -> Outputs:
        """uint8 ``[B, h, w, 3]`` -> three tensors that need every index found."""
        shift = frames[..., :1].to(torch.float32).flatten(1, 2) * 1e-3
        patches = self.get_buffer("patches") + shift
        found = self.search(patches.flatten(0, 1)).to(torch.float32)
        sums = found.sum(1).view(-1, *self.grid)
        return sums.mean((1, 2)), sums, sums + 1


def make_model(
    path: Path,
    *,
    backbone: str = "resnet18",
    image_size: int = 256,
    bank_rows: int = 2048,
    search: str = "exact",
    only_search: bool = False,
) -> Path:
    """Write ``path`` with its manifest, as ``export-model`` does for a fitted model.

    Args:
        path: ends in ``.onnx``; its folder is there.
        backbone: of timm, untrained.
        image_size: side of the frames in pixels.
        bank_rows: M.
        search: one of :data:`SEARCHES`.
        only_search: the search alone, as :class:`SearchOnly`.

    Raises:
        ConfigurationError: no such search, backbone or size.
    """
    check_search(search)
    settings = FitSettings(
        backbone=backbone,
        weights="random",
        image_size=(image_size, image_size),
        coreset_ratio=1.0,
    )
    embedder = PatchEmbedder(backbone, settings.model_size, "random")
    bank = drawn_rows(bank_rows, embedder.dimension, seed=0)
    head = AnomalyHead(
        bank,
        _STATISTICS,
        embedder.grid,
        settings.model_size,
        score=settings.score_name,
        neighbors=settings.neighbors,
    )
    detector = Detector(embedder, head)
    manifest = describe(_fitted(detector, bank), settings, None)
    if search == "pruned":
        plan = default_plan(embedder.dimension, settings.neighbors)
        detector, manifest = (
            with_pruned_search(detector, plan),
            SearchChoice(plan).noted_in(manifest),
        )
    if not only_search:
        return _write(detector, manifest, path)
    height, width = embedder.grid
    size = ModelSize(height=height, width=width)
    module = SearchOnly(detector.head, embedder.grid, embedder.dimension).eval()
    return _write(module, manifest.model_copy(update={"model_size": size}), path)


def check_search(name: str) -> None:
    """Refuse a search that there is not.

    Raises:
        ConfigurationError: it is not one of :data:`SEARCHES`.
    """
    if name not in SEARCHES:
        raise ConfigurationError(f"search is {name!r}, expected one of: {', '.join(SEARCHES)}")


def _fitted(detector: Detector, bank: Tensor) -> FittedModel:
    normal = normal_scores(torch.ones(2).numpy(), torch.ones(2).numpy(), "cross-fit")
    settings = FitSettings()
    return FittedModel(
        detector=detector,
        memory_bank=bank,
        coreset_radius=None,
        statistics=_STATISTICS,
        normal=normal,
        threshold=threshold_of_fit(normal, settings.false_alarm_rate),
        training_set=TrainingSet(images=1, skipped_unreadable=0, sha256="0" * 64),
        pictures=GoodPictures("drawn", Path(), ()),
        picture_digests=(),
        row_pictures=None,
        memory=MemoryPlan(spill=None, features_bytes=0, peak_bytes=0),
    )


def _write(module: nn.Module, manifest: Manifest, path: Path) -> Path:
    graph = to_onnx(module, manifest.model_size)
    set_metadata(graph, {METADATA_KEY: manifest.to_json()})
    save_onnx(graph, path)
    file = OnnxFile(file=path.name, sha256=model_digest(path))
    manifest.model_copy(update={"onnx": file}).save(manifest_path(path))
    return path
