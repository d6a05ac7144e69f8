"""Good pictures -> fitted model: features, coreset, held-out statistics, threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchline.calibration.folds import LEAST_TO_SPLIT, assign_calibration
from patchline.calibration.threshold import normal_scores, threshold_of_fit
from patchline.export.backbone import PatchEmbedder
from patchline.export.config import FitSettings
from patchline.export.coreset import Coreset, coreset_size
from patchline.export.coreset_sharded import RunShards, Sharding, default_shards
from patchline.export.cross_fit import (
    HeadSettings,
    Images,
    choose_bank,
    cross_fit,
    held_out_statistics,
    judge_images,
)
from patchline.export.datasets import GoodPictures, digest_of, picture_digests
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.extend import (
    check_weights,
    pictures_of_rows,
    pooled_scores,
    represented_images,
    training_set,
)
from patchline.export.features import OnUnreadable, TrainingFeatures, extract_features
from patchline.export.float32 import full_float32
from patchline.export.memory import MemoryPlan, plan_memory
from patchline.export.state import TrainingState
from patchline.runtime.contract import (
    DistanceStatistics,
    NormalScores,
    PictureSet,
    ShardedCoreset,
    Threshold,
    TrainingSet,
)
from patchline.runtime.errors import ConfigurationError, ImageReadError
from patchline.runtime.progress import Steps


@dataclass(frozen=True)
class FittedModel:
    """A model before its export.

    Attributes:
        detector: the module that computes it, on the CPU.
        memory_bank: float32 ``[M, D]``, in the order of picking.
        coreset_radius: largest distance of a training row to the bank, in the projection;
            ``None`` where it was not fitted but made again from its state.
        statistics: of the mean distance of held-out patches.
        normal: held-out scores of the good pictures.
        threshold: found from them.
        training_set: what it was fitted on.
        pictures: the pictures that were read.
        picture_digests: of all pictures behind the model, those of an extended one too.
        row_pictures: int32 ``[M]``, for each row of the bank the picture it came from, as an index
            into ``picture_digests``; ``None`` where an older model that is extended does not say.
        memory: what the fit held.
        sharded: how the bank was chosen in shards; ``None`` where it is the exact coreset.
    """

    detector: Detector
    memory_bank: Tensor
    coreset_radius: float | None
    statistics: DistanceStatistics
    normal: NormalScores
    threshold: Threshold
    training_set: TrainingSet
    pictures: GoodPictures
    picture_digests: tuple[str, ...]
    row_pictures: Tensor | None
    memory: MemoryPlan
    sharded: ShardedCoreset | None = None


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


@full_float32()
@torch.inference_mode()
def fit(
    pictures: GoodPictures,
    settings: FitSettings,
    steps: Steps,
    on_unreadable: OnUnreadable,
    base: TrainingState | None = None,
    run_shards: RunShards = map,
) -> FittedModel:
    """Fit one class.

    Args:
        pictures: the good pictures.
        settings: see :class:`FitSettings`.
        steps: shows progress.
        on_unreadable: told of pictures that are left out, where the settings allow it.
        base: a model that these pictures extend; see :mod:`patchline.export.extend`.
        run_shards: does the shards of a coreset that is chosen in shards; one after another in
            this process by default.

    Raises:
        DataError: too few pictures, or one cannot be read.
        ConfigurationError: settings that cannot be, or a memory budget too small.
        WeightsError: the backbone's weights cannot be loaded, or are not those of ``base``.
    """
    device = choose_device(settings.device)
    embedder = PatchEmbedder(settings.backbone, settings.model_size, settings.weights)
    if base is not None:
        check_weights(embedder.weights, base.manifest)
    plan = plan_fit(len(pictures.paths), embedder, settings, base)
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
            inherited=None if base is None else base.memory_bank,
            holds_projections=settings.coreset == "exact",
        )
    try:
        added = PictureSet(
            images=len(features.paths),
            skipped_unreadable=len(skipped),
            sha256=digest_of(features.paths),
        )
        sharding = _sharding(settings, plan, run_shards)
        shared = _head_settings(settings, embedder, base, sharding)
        chosen = _choose(features, shared, settings, steps, base)
    finally:
        features.rows.close()
    normal = pooled_scores(chosen.normal, base)
    return FittedModel(
        detector=Detector(embedder, chosen.head).to("cpu"),
        memory_bank=chosen.memory_bank,
        coreset_radius=chosen.coreset_radius,
        statistics=chosen.statistics,
        normal=normal,
        threshold=threshold_of_fit(normal, settings.false_alarm_rate),
        training_set=training_set(added, chosen.calibration_images, base),
        pictures=GoodPictures(pictures.class_name, pictures.folder, features.paths),
        picture_digests=(base.pictures if base else ()) + picture_digests(features.paths),
        row_pictures=pictures_of_rows(chosen.rows, features.patches, base),
        memory=plan,
        sharded=_on_record(shared.sharding, chosen.coreset_radius),
    )


@dataclass(frozen=True)
class _Chosen:
    """A bank with its head, and what held-out images say of it.

    ``rows`` int64 ``[M]`` are the bank's rows among the features.
    """

    rows: Tensor
    memory_bank: Tensor
    coreset_radius: float
    head: AnomalyHead
    statistics: DistanceStatistics
    normal: NormalScores | None
    calibration_images: int


def _choose(
    features: TrainingFeatures,
    shared: HeadSettings,
    settings: FitSettings,
    steps: Steps,
    base: TrainingState | None,
) -> _Chosen:
    known = None if base is None else base.manifest.distance_statistics
    count, share = len(features.paths), settings.calibration_split
    if share is None:
        held_out = cross_fit(features, shared, steps, statistics=known)
        everything = np.ones(count, np.bool_)
        picked, bank = _bank(features, everything, shared, steps)
        head = shared.head(bank, held_out.statistics)
        crossed = normal_scores(held_out.image_scores, held_out.map_maxima, "cross-fit")
        return _Chosen(picked.indices, bank, picked.radius, head, held_out.statistics, crossed, 0)
    if base is not None and count < LEAST_TO_SPLIT:  # all into the bank; the old scores stay
        kept_out = np.zeros(count, np.bool_)
    else:
        kept_out = assign_calibration(count, share, settings.seed)
    # The statistics belong to the score, so the calibration images have no part in them either.
    statistics = known or held_out_statistics(features, ~kept_out, shared, steps)
    picked, bank = _bank(features, ~kept_out, shared, steps)
    head = shared.head(bank, statistics)
    normal = None
    if kept_out.any():
        scores, maxima = judge_images(features, kept_out, head, shared, steps)
        normal = normal_scores(scores, maxima, "calibration-split")
    return _Chosen(
        picked.indices, bank, picked.radius, head, statistics, normal, int(kept_out.sum())
    )


def _bank(
    features: TrainingFeatures, images: Images, shared: HeadSettings, steps: Steps
) -> tuple[Coreset, Tensor]:
    size = shared.bank_rows(int(images.sum()), features.patches)
    with steps.step("Choosing the memory bank", size) as advance:
        coreset = choose_bank(features, images, shared, advance)
    return coreset, features.rows.gather(coreset.indices)


def plan_fit(
    images: int, embedder: PatchEmbedder, settings: FitSettings, base: TrainingState | None
) -> MemoryPlan:
    """What a fit will hold.

    Args:
        images: pictures to fit on.
        embedder: the backbone, whatever its weights.
        settings: of the fit.
        base: a model that is extended.

    Raises:
        ConfigurationError: the memory budget is too small.
    """
    patches = embedder.grid[0] * embedder.grid[1]
    size = coreset_size((represented_images(base) + images) * patches, settings.coreset_ratio)
    inherited = 0 if base is None else len(base.memory_bank)
    shards = None
    if settings.coreset == "sharded":
        shards = settings.coreset_shards or default_shards(inherited + images * patches, size)
    return plan_memory(
        images=images,
        patches=patches,
        dimension=embedder.dimension,
        bank_rows=size,
        neighbors=settings.neighbors,
        budget_bytes=settings.memory_budget_bytes,
        inherited_rows=inherited,
        shards=shards,
    )


def _sharding(settings: FitSettings, plan: MemoryPlan, run_shards: RunShards) -> Sharding | None:
    if plan.shards is None:
        return None
    return Sharding(plan.shards, settings.coreset_delta, plan.cover_rows, run_shards)


def _on_record(sharding: Sharding | None, radius: float) -> ShardedCoreset | None:
    if sharding is None:
        return None
    return ShardedCoreset(shards=sharding.shards, delta=sharding.delta, covering_radius=radius)


def _head_settings(
    settings: FitSettings,
    embedder: PatchEmbedder,
    base: TrainingState | None,
    sharding: Sharding | None,
) -> HeadSettings:
    return HeadSettings(
        grid=embedder.grid,
        size=embedder.size,
        score=settings.score_name,
        neighbors=settings.neighbors,
        coreset_ratio=settings.coreset_ratio,
        seed=settings.seed,
        device=next(embedder.network.parameters()).device,
        represented_rows=represented_images(base) * embedder.grid[0] * embedder.grid[1],
        sharding=sharding,
    )
