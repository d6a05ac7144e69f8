"""Good pictures -> fitted model: features, coreset, held-out statistics, threshold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchline.calibration.threshold import normal_scores, quantile_threshold
from patchline.export.backbone import PatchEmbedder
from patchline.export.config import FitSettings
from patchline.export.coreset import coreset_size, greedy_coreset
from patchline.export.cross_fit import HeadSettings, cross_fit
from patchline.export.datasets import GoodPictures, digest_of
from patchline.export.detector import Detector
from patchline.export.features import OnUnreadable, TrainingFeatures, extract_features
from patchline.export.memory import MemoryPlan, plan_memory
from patchline.export.progress import Steps
from patchline.runtime.contract import DistanceStatistics, NormalScores, Threshold, TrainingSet
from patchline.runtime.errors import ConfigurationError, ImageReadError


@dataclass(frozen=True)
class FittedModel:
    """A model before its export.

    Attributes:
        detector: the module that computes it, on the CPU.
        memory_bank: float32 ``[M, D]``, in the order of picking.
        coreset_radius: largest distance of a training row to the bank, in the projection.
        statistics: of the mean distance of held-out patches.
        normal: held-out scores of the good pictures.
        threshold: found from them.
        training_set: what it was fitted on.
        pictures: the pictures that were read.
        memory: what the fit held.
    """

    detector: Detector
    memory_bank: Tensor
    coreset_radius: float
    statistics: DistanceStatistics
    normal: NormalScores
    threshold: Threshold
    training_set: TrainingSet
    pictures: GoodPictures
    memory: MemoryPlan


def choose_device(name: str) -> torch.device:
    """``cpu``, ``cuda``, or ``auto``: CUDA where PyTorch has it.

    Raises:
        ConfigurationError: CUDA is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device is cuda, but PyTorch finds no CUDA here. Use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@torch.inference_mode()
def fit(
    pictures: GoodPictures,
    settings: FitSettings,
    steps: Steps,
    on_unreadable: OnUnreadable,
) -> FittedModel:
    """Fit one class.

    Args:
        pictures: the good pictures.
        settings: see :class:`FitSettings`.
        steps: shows progress.
        on_unreadable: told of pictures that are left out, where the settings allow it.

    Raises:
        DataError: too few pictures, or one cannot be read.
        ConfigurationError: settings that cannot be, or a memory budget too small.
        WeightsError: the backbone's weights cannot be loaded.
    """
    device = choose_device(settings.device)
    embedder = PatchEmbedder(settings.backbone, settings.model_size, settings.weights)
    plan = _plan(len(pictures.paths), embedder, settings)
    skipped: list[ImageReadError] = []

    def skip(error: ImageReadError) -> None:
        skipped.append(error)
        on_unreadable(error)

    with steps.step(f"Embedding {len(pictures.paths)} pictures", len(pictures.paths)) as advance:
        features = extract_features(
            pictures.paths,
            embedder.to(device),
            batch_size=settings.batch_size,
            seed=settings.seed,
            spill=plan.spill,
            on_unreadable=skip if settings.skip_unreadable else None,
            advance=advance,
        )
    try:
        return _fit_features(pictures, settings, embedder, features, plan, len(skipped), steps)
    finally:
        features.rows.close()


def _fit_features(
    pictures: GoodPictures,
    settings: FitSettings,
    embedder: PatchEmbedder,
    features: TrainingFeatures,
    plan: MemoryPlan,
    skipped: int,
    steps: Steps,
) -> FittedModel:
    shared = _head_settings(settings, embedder)
    held_out = cross_fit(features, shared, steps)
    size = coreset_size(len(features.rows), settings.coreset_ratio)
    with steps.step("Choosing the memory bank", size) as advance:
        coreset = greedy_coreset(
            features.projections, size, seed=settings.seed, on_progress=advance
        )
    memory_bank = features.rows.gather(coreset.indices)
    head = shared.head(memory_bank, held_out.statistics)
    normal = normal_scores(held_out.image_scores, held_out.map_maxima)
    return FittedModel(
        detector=Detector(embedder, head).to("cpu"),
        memory_bank=memory_bank,
        coreset_radius=coreset.radius,
        statistics=held_out.statistics,
        normal=normal,
        threshold=quantile_threshold(normal),
        training_set=TrainingSet(
            images=len(features.paths),
            skipped_unreadable=skipped,
            sha256=digest_of(features.paths),
        ),
        pictures=GoodPictures(pictures.class_name, pictures.folder, features.paths),
        memory=plan,
    )


def _plan(images: int, embedder: PatchEmbedder, settings: FitSettings) -> MemoryPlan:
    patches = embedder.grid[0] * embedder.grid[1]
    return plan_memory(
        images=images,
        patches=patches,
        dimension=embedder.dimension,
        bank_rows=coreset_size(images * patches, settings.coreset_ratio),
        neighbors=settings.neighbors,
        budget_bytes=settings.memory_budget_bytes,
    )


def _head_settings(settings: FitSettings, embedder: PatchEmbedder) -> HeadSettings:
    return HeadSettings(
        grid=embedder.grid,
        size=embedder.size,
        score=settings.score_name,
        neighbors=settings.neighbors,
        coreset_ratio=settings.coreset_ratio,
        seed=settings.seed,
        device=next(embedder.network.parameters()).device,
    )
