"""Adding good pictures to a fitted model without the pictures it was fitted on.

The rows of the old bank stay, in their order: they stand for pictures that are gone, so none may
be dropped. The new pictures' rows join them as candidates, and the greedy picks from there until
the bank has its share of all rows there ever were. The frozen statistics and all else that the
score depends on stay as they are, so that old and new held-out scores can be pooled; the old
ones were measured against the smaller bank, which makes them a little conservative.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchline.calibration.threshold import normal_scores
from patchline.export.config import FitSettings, make_settings
from patchline.export.datasets import GoodPictures, picture_digests, pictures_in
from patchline.export.state import TrainingState, load_state
from patchline.export.weights import RANDOM, Weights
from patchline.runtime.bank import BANK_SUFFIX, load_bank
from patchline.runtime.contract import (
    Manifest,
    NormalScores,
    PictureSet,
    ShardedCoreset,
    Threshold,
    TrainingSet,
    load_manifest,
    manifest_path,
)
from patchline.runtime.errors import ConfigurationError, DataError, WeightsError

_HUB = "hub:"


def load_base(out: Path, class_name: str) -> TrainingState:
    """The state of a model exported earlier: ``out/NAME.safetensors``.

    Raises:
        ModelError: it is missing, damaged or no Patchline state.
        ConfigurationError: it is of another class.
    """
    path = out / f"{class_name}.safetensors"
    if not path.is_file():
        raise ConfigurationError(
            f"{path} does not exist, and the model is to be made from it. Fit the class first, or "
            "give the folder of its model (--out, or --state)"
        )
    state = load_state(path)
    if state.manifest.class_name != class_name:
        raise ConfigurationError(
            f"{path} holds the class {state.manifest.class_name}, not {class_name}. Give the "
            "file its own name again"
        )
    return state


def settings_of(
    base: TrainingState,
    fields: dict[str, Any],
    *,
    false_alarm_rate: float | None = None,
    config: Path | None = None,
) -> FitSettings:
    """The settings a model was fitted with, and for the rest those that are given.

    Args:
        base: the model.
        fields: fields of :class:`FitSettings` that were given; what the model fixes may be
            among them if it says the same.
        false_alarm_rate: unless given among the fields; the state's own by default.
        config: file to name in messages about the fields.

    Raises:
        ConfigurationError: a field contradicts the model (all are named), or the backbone's
            weights came from a file that is not given.
    """
    manifest = base.manifest
    fixed = _fixed(manifest)
    found = clashes(base, fields)
    if found:
        raise ConfigurationError(
            f"the model keeps what {manifest.class_name} was fitted with: {'; '.join(found)}. "
            "Leave that out, or fit anew from all pictures"
        )
    own = {
        "weights": _weights(manifest, fields.get("weights")),
        "false_alarm_rate": false_alarm_rate or manifest.threshold.false_alarm_rate,
        "calibration_split": _split(manifest),
        "bank": base.bank,
    }
    return make_settings(own | fields | fixed, config)


def clashes(base: TrainingState, fields: dict[str, Any]) -> list[str]:
    """What the model fixes and a given field says otherwise, a phrase each."""
    return [
        f"{name} is {_plain(fields[name])!r}, the model has {value!r}"
        for name, value in _fixed(base.manifest).items()
        if name in fields and _plain(fields[name]) != value
    ]


def pictures_to_add(folder: Path, base: TrainingState) -> tuple[GoodPictures, int]:
    """The pictures of a plain folder, or of its ``train/good``, that the model does not have.

    A picture that is in the bank already would be judged by its own rows, and lower the threshold.

    Returns:
        The new pictures, and how many were left out because the model has them.

    Raises:
        DataError: there is no picture, or no new one.
    """
    pictures = pictures_in(folder, base.manifest.class_name)
    known = set(base.pictures)
    digests = picture_digests(pictures.paths)
    new = tuple(p for p, digest in zip(pictures.paths, digests, strict=True) if digest not in known)
    if not new:
        raise DataError(
            f"all {len(pictures.paths)} pictures of {pictures.folder} are in "
            f"{pictures.class_name} already: give --extend new ones"
        )
    return replace(pictures, paths=new), len(pictures.paths) - len(new)


def current_threshold(out: Path, base: TrainingState) -> Threshold:
    """The threshold of the deployed model, which may be newer than the state's own.

    Raises:
        ModelError: the manifest beside the model, or its bank file, is there and damaged.
    """
    return (deployed_manifest(out, base) or base.manifest).threshold


def deployed_manifest(out: Path, base: TrainingState) -> Manifest | None:
    """The manifest of the deployed model, at whatever precision; ``None`` where there is none.

    Raises:
        ModelError: as for :func:`current_threshold`.
    """
    model = out / f"{base.manifest.class_name}.onnx"
    if base.bank == "external":
        path = model.with_suffix(BANK_SUFFIX)
        return load_bank(path).manifest if path.is_file() else None
    path = manifest_path(model)
    return load_manifest(path) if path.is_file() else None


def is_recalibrated(deployed: Manifest, manifest: Manifest) -> bool:
    """Whether the deployed model's threshold is another than its fit gave it.

    That of a converted model lies on a scale of its own, so only pictures of the line count there.
    """
    if deployed.precision == "fp32":
        return deployed.threshold != manifest.threshold
    return deployed.normal_scores.source == "line"


def check_weights(weights: Weights, manifest: Manifest) -> None:
    """Raises: WeightsError: a model was fitted with other weights."""
    if weights.sha256 != manifest.backbone.weights_sha256:
        raise WeightsError(
            f"{manifest.class_name} was fitted with the weights {manifest.backbone.weights_source} "
            f"(sha256 {manifest.backbone.weights_sha256[:12]}…), and {weights.source} holds others "
            f"({weights.sha256[:12]}…). Give --weights the same file"
        )


def pictures_of_rows(
    rows: Tensor, patches: int, base: TrainingState | None = None
) -> Tensor | None:
    """The picture each row of a bank came from.

    Args:
        rows: int64 ``[M]``, rows of the features: those of ``base`` first, then picture by picture.
        patches: rows of one picture.
        base: a model that is extended.

    Returns:
        int32 ``[M]``, indices into the digests of all pictures, those of ``base`` first; ``None``
        where ``base`` does not say where its own rows came from.
    """
    if base is None:
        return rows.div(patches, rounding_mode="floor").to(torch.int32)
    if base.row_pictures is None:
        return None
    inherited = len(base.memory_bank)
    new = (rows - inherited).div(patches, rounding_mode="floor") + len(base.pictures)
    known = base.row_pictures.to(torch.int64)
    before = known[rows.clamp(max=inherited - 1)]
    return torch.where(rows < inherited, before, new).to(torch.int32)


def represented_images(base: TrainingState | None) -> int:
    """Images whose rows the inherited bank was chosen from."""
    if base is None:
        return 0
    training = base.manifest.training_set
    return training.images - training.calibration_images


def pooled_scores(normal: NormalScores | None, base: TrainingState | None) -> NormalScores:
    """Held-out scores of the new pictures, where there are any, and of those before."""
    if base is None:
        if normal is None:
            raise ValueError("a model that extends none has scores of its own")
        return normal
    before = base.manifest.normal_scores
    if normal is None:
        return before
    return normal_scores(
        np.array(before.scores + normal.scores),
        np.array(before.map_maxima + normal.map_maxima),
        before.source if before.source == normal.source else "mixed",
    )


def training_set(
    added: PictureSet, calibration_images: int, base: TrainingState | None
) -> TrainingSet:
    """What a model was fitted on, counting every part of it."""
    if base is None:
        return TrainingSet(**dict(added), calibration_images=calibration_images)
    before = base.manifest.training_set
    parts = (*_parts(before), added)
    return TrainingSet(
        images=sum(part.images for part in parts),
        skipped_unreadable=sum(part.skipped_unreadable for part in parts),
        sha256=hashlib.sha256(" ".join(part.sha256 for part in parts).encode()).hexdigest(),
        calibration_images=before.calibration_images + calibration_images,
        parts=parts,
    )


def _parts(training: TrainingSet) -> tuple[PictureSet, ...]:
    whole = PictureSet(
        images=training.images,
        skipped_unreadable=training.skipped_unreadable,
        sha256=training.sha256,
    )
    return training.parts or (whole,)


def _fixed(manifest: Manifest) -> dict[str, Any]:
    bank = manifest.required_bank()
    return {
        "method": manifest.method,
        "score": manifest.score,
        "backbone": manifest.backbone.name,
        "image_size": [manifest.model_size.height, manifest.model_size.width],
        "coreset_ratio": bank.coreset_ratio,
        "neighbors": bank.neighbors,
        "seed": bank.seed,
        **_fixed_coreset(bank.coreset),
    }


def _fixed_coreset(coreset: ShardedCoreset | None) -> dict[str, Any]:
    if coreset is None:
        return {"coreset": "exact"}
    return {
        "coreset": coreset.method,
        "coreset_delta": coreset.delta,
        "coreset_shards": coreset.shards,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _weights(manifest: Manifest, given: str | None) -> str | None:
    source = manifest.backbone.weights_source
    if given is not None or source.startswith(_HUB):
        return given
    if source == RANDOM:
        return RANDOM
    raise ConfigurationError(
        f"{manifest.class_name} was fitted with the weights file {source}: give it again with "
        "--weights"
    )


def _split(manifest: Manifest) -> float | None:
    training = manifest.training_set
    return training.calibration_images / training.images or None
