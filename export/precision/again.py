"""A model made again from its state: at another precision, without a fit and without its pictures.

Where the state says the same as what is asked for, nothing is fitted; where it does not, the class
is fitted anew and the difference is named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patchline.calibration.threshold import threshold_of_fit
from patchline.export.backbone import PatchEmbedder
from patchline.export.config import FitSettings, make_settings
from patchline.export.datasets import GoodPictures, picture_digests
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.extend import (
    check_weights,
    clashes,
    deployed_manifest,
    load_base,
    settings_of,
)
from patchline.export.features import OnUnreadable
from patchline.export.fit import FittedModel
from patchline.export.memory import MemoryPlan
from patchline.export.state import TrainingState, state_path
from patchline.runtime.contract import Manifest, NormalScores, Threshold
from patchline.runtime.errors import ConfigurationError, ImageReadError, ModelError
from patchline.runtime.image_file import read_image

_LINE = "line"


@dataclass(frozen=True)
class Job:
    """How one class comes about.

    Attributes:
        pictures: its good pictures.
        settings: of the fit, or of the model that is made again.
        state: what it is made again from; ``None`` where it is fitted.
        deployed: manifest beside the state, which may hold a threshold of the line.
        note: what there is to say of the choice; may be empty.
    """

    pictures: GoodPictures
    settings: FitSettings
    state: TrainingState | None = None
    deployed: Manifest | None = None
    note: str = ""


def plan_job(
    pictures: GoodPictures,
    fields: dict[str, Any],
    config: Path | None,
    folder: Path,
    *,
    must_reuse: bool,
) -> Job:
    """Decide whether a class is made again from its state or fitted.

    Args:
        pictures: the good pictures at hand.
        fields: fields of :class:`FitSettings` that were given.
        config: file to name in messages about them.
        folder: where the state would lie.
        must_reuse: whether a state that cannot be used is an error, instead of a fit; its
            pictures may then be others than those at hand.

    Raises:
        ConfigurationError: a field that cannot be, or (with ``must_reuse``) a state that is not
            there or contradicts the fields; or its weights file is not given.
        ModelError: with ``must_reuse``, the state is damaged.
    """
    fit_job = Job(pictures, make_settings(fields, config))
    path = state_path(folder / f"{pictures.class_name}.onnx")
    if not must_reuse and not path.is_file():
        return fit_job
    try:
        state = load_base(folder, pictures.class_name)
    except ModelError as error:
        if must_reuse:
            raise
        return replace(fit_job, note=f"fitted anew, because {error}")
    reasons = clashes(state, fields) + _split_clash(state.manifest, fit_job.settings, fields)
    if not must_reuse:
        reasons += _picture_clashes(state, fit_job)
    if reasons and must_reuse:
        raise ConfigurationError(
            f"{path} was fitted otherwise: {'; '.join(reasons)}. Leave that out, or leave --state "
            "out to fit anew"
        )
    if reasons:
        return replace(
            fit_job, note=f"fitted anew, and not taken from {path}: {'; '.join(reasons)}"
        )
    deployed = _own(deployed_manifest(folder, state), state.manifest)
    rate = (deployed or state.manifest).threshold.false_alarm_rate
    settings = settings_of(state, fields, false_alarm_rate=rate, config=config)
    note = f"made again from {path}, without a fit"
    return Job(pictures, settings, state, deployed, note)


def fitted_again(job: Job, on_unreadable: OnUnreadable) -> FittedModel:
    """The fitted model of a state, as a fit would give it.

    Its normal scores are the state's, or those of the line where the float32 model that is
    deployed was calibrated with them. Its pictures are those at hand.

    Args:
        job: with a state.
        on_unreadable: told of pictures that are left out, where the settings allow it.

    Raises:
        WeightsError: the backbone's weights cannot be loaded, or are others.
        ImageReadError: a picture cannot be read.
    """
    state, settings = job.state, job.settings
    if state is None:
        raise ValueError("the job has no state")
    embedder = PatchEmbedder(settings.backbone, settings.model_size, settings.weights)
    check_weights(embedder.weights, state.manifest)
    head = AnomalyHead(
        state.memory_bank,
        state.manifest.required_statistics(),
        embedder.grid,
        embedder.size,
        score=state.manifest.score,
        neighbors=state.manifest.required_bank().neighbors,
    )
    normal, threshold = _normal(job, state)
    bank_bytes = state.memory_bank.numel() * state.memory_bank.element_size()
    return FittedModel(
        detector=Detector(embedder, head),
        memory_bank=state.memory_bank,
        coreset_radius=None,
        sharded=state.manifest.required_bank().coreset,
        statistics=state.manifest.required_statistics(),
        normal=normal,
        threshold=threshold,
        training_set=state.manifest.training_set,
        pictures=readable(job.pictures, settings, on_unreadable),
        picture_digests=state.pictures,
        row_pictures=state.row_pictures,
        memory=MemoryPlan(spill=None, features_bytes=0, peak_bytes=bank_bytes),
    )


def readable(
    pictures: GoodPictures,
    settings: FitSettings,
    on_unreadable: OnUnreadable = lambda error: None,
) -> GoodPictures:
    """The pictures that can be read, where the settings leave the others out; all of them if not.

    Args:
        pictures: of a class.
        settings: say whether any may be left out.
        on_unreadable: told of those that are.
    """
    if not settings.skip_unreadable:
        return pictures
    return replace(
        pictures, paths=tuple(path for path in pictures.paths if _can_be_read(path, on_unreadable))
    )


def lost_calibration(deployed: Manifest | None) -> str | None:
    """A sentence where the deployed model was calibrated on the line at another precision."""
    if deployed is None or deployed.precision == "fp32" or deployed.normal_scores.source != _LINE:
        return None
    return (
        f"the threshold {deployed.threshold.value:.4g} ({deployed.threshold.rule}) was of the "
        f"{deployed.precision} model and is replaced. Calibrate again: calibrate-threshold "
        "--images with pictures of the line"
    )


def _normal(job: Job, state: TrainingState) -> tuple[NormalScores, Threshold]:
    """Normal scores in float32, and the threshold they give at the rate that is asked for."""
    deployed, normal, labelled = job.deployed, state.manifest.normal_scores, None
    if deployed is not None and deployed.precision == "fp32":
        labelled = deployed.threshold.f1_max
        if deployed.normal_scores.source == _LINE:
            normal = deployed.normal_scores
    threshold = threshold_of_fit(normal, job.settings.false_alarm_rate)
    return normal, threshold.model_copy(update={"f1_max": labelled})


def _own(deployed: Manifest | None, manifest: Manifest) -> Manifest | None:
    """The deployed manifest, if it is of the same fit."""
    is_own = deployed is not None and deployed.training_set == manifest.training_set
    return deployed if is_own else None


def _split_clash(manifest: Manifest, settings: FitSettings, fields: dict[str, Any]) -> list[str]:
    if "calibration_split" not in fields:
        return []
    training, share = manifest.training_set, settings.calibration_split or 0.0
    rounding = 2 * max(1, len(training.parts))  # whole pictures, two at least, of each part
    distance = abs(share * training.images - training.calibration_images)
    if share and training.calibration_images and distance <= rounding:
        return []
    return [
        f"calibration_split is {share:g}, the model kept {training.calibration_images} of "
        f"{training.images} pictures out"
    ]


def _picture_clashes(state: TrainingState, job: Job) -> list[str]:
    if state.row_pictures is None:
        return ["it does not say which picture each row of its bank came from"]
    known = set(state.pictures)
    digests = picture_digests(job.pictures.paths)
    pairs = zip(job.pictures.paths, digests, strict=True)
    new = [path for path, digest in pairs if digest not in known]
    if job.settings.skip_unreadable:
        new = [path for path in new if _can_be_read(path)]
    gone = known.difference(digests)
    reasons = [f"{len(new)} pictures are not in it ({new[0].name})"] if new else []
    if gone and not state.manifest.training_set.parts:  # an extended model outlives its pictures
        reasons.append(f"{len(gone)} of its pictures are not there any more")
    return reasons


def _can_be_read(path: Path, on_unreadable: OnUnreadable = lambda error: None) -> bool:
    try:
        read_image(path)
    except ImageReadError as error:
        on_unreadable(error)
        return False
    return True
