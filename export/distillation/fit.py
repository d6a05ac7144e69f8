"""Good pictures -> distilled model: training, held-out scores, threshold (Deng & Li, CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from patchline.calibration.folds import LEAST_TO_SPLIT, assign_calibration
from patchline.calibration.threshold import Scores, normal_scores, threshold_of_fit
from patchline.export.config import FitSettings
from patchline.export.datasets import GoodPictures, digest_of, picture_digests
from patchline.export.distillation.checkpoint import last_good
from patchline.export.distillation.detector import DistilledDetector
from patchline.export.distillation.loop import Validate
from patchline.export.distillation.memory_errors import memory_errors
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.distillation.training import TrainingResult, train
from patchline.export.features import OnUnreadable, read_frames
from patchline.export.fit import choose_device
from patchline.export.float32 import full_float32
from patchline.export.tracking.base import Tracker
from patchline.runtime.contract import NormalScores, Threshold, TrainingSet
from patchline.runtime.errors import DataError, ImageReadError
from patchline.runtime.image_file import read_image
from patchline.runtime.progress import Steps

Paths = tuple[Path, ...]


@dataclass(frozen=True)
class DistilledModel:
    """A distilled model before its export.

    Attributes:
        detector: the module that computes it, on the CPU.
        normal: scores of the good pictures that it was not trained on.
        threshold: found from them.
        training_set: what it was fitted on.
        pictures: the pictures that were read.
        held_out: those of them that it was not trained on.
        picture_digests: of ``pictures``, in their order.
        result: how the training went.
    """

    detector: DistilledDetector
    normal: NormalScores
    threshold: Threshold
    training_set: TrainingSet
    pictures: GoodPictures
    held_out: Paths
    picture_digests: tuple[str, ...]
    result: TrainingResult


def fit_distillation(
    pictures: GoodPictures,
    settings: FitSettings,
    steps: Steps,
    on_unreadable: OnUnreadable,
    *,
    tracker: Tracker,
    checkpoints: Path | None = None,
    resume: bool = False,
    validate: Validate | None = None,
) -> DistilledModel:
    """Train one class, and find its threshold from pictures that it was not trained on.

    Args:
        pictures: the good pictures.
        settings: see :class:`FitSettings`.
        steps: shows progress.
        on_unreadable: told of pictures that are left out, where the settings allow it.
        tracker: told how the training goes.
        checkpoints: folder for them; ``None`` for none.
        resume: whether to go on from the newest of them.
        validate: judges the model now and then; see
            :func:`patchline.export.distillation.training.train`.

    Raises:
        DataError: too few pictures, or one cannot be read, or one gets no finite score.
        ConfigurationError: settings that cannot be, or nothing to resume from.
        TrainingError: the loss is not finite, the memory does not suffice, or the checkpoint is of
            another training.
        WeightsError: the teacher's weights cannot be loaded.
    """
    device = choose_device(settings.device)
    model = ReverseDistillation(
        settings.backbone,
        settings.model_size,
        settings.weights,
        width_per_group=settings.train.width_per_group,
        seed=settings.seed,
    )
    read = _readable(pictures, settings, steps, on_unreadable)
    trained_on, held_out = _split(read, settings)
    result = train(
        model,
        trained_on,
        settings.train,
        device=device,
        tracker=tracker,
        steps=steps,
        seed=settings.seed,
        memory_budget_bytes=settings.memory_budget_bytes,
        checkpoints=checkpoints,
        resume=resume,
        validate=validate,
    )
    detector = DistilledDetector(model)
    with memory_errors(None, settings.model_size, lambda: last_good(checkpoints)):
        scores, maxima = _judge(detector, held_out, settings, steps, device)
    normal = normal_scores(scores, maxima, "calibration-split")
    return DistilledModel(
        detector=detector.to("cpu"),
        normal=normal,
        threshold=threshold_of_fit(normal, settings.false_alarm_rate),
        training_set=TrainingSet(
            images=len(read),
            skipped_unreadable=len(pictures.paths) - len(read),
            sha256=digest_of(read),
            calibration_images=len(held_out),
        ),
        pictures=GoodPictures(pictures.class_name, pictures.folder, read),
        held_out=held_out,
        picture_digests=picture_digests(read),
        result=result,
    )


def _readable(
    pictures: GoodPictures, settings: FitSettings, steps: Steps, on_unreadable: OnUnreadable
) -> Paths:
    """The pictures that can be read: a training of hours must not end at the last of them."""
    read = []
    with steps.step(f"Checking {len(pictures.paths)} pictures", len(pictures.paths)) as advance:
        for done, path in enumerate(pictures.paths, start=1):
            try:
                read_image(path)
                read.append(path)
            except ImageReadError as error:
                if not settings.skip_unreadable:
                    raise ImageReadError(
                        f"{error}. Remove it, or leave unreadable pictures out with "
                        "--skip-unreadable"
                    ) from error
                on_unreadable(error)
            advance(done)
    if not read:
        raise DataError(
            f"none of the {len(pictures.paths)} pictures in {pictures.folder} can be read"
        )
    return tuple(read)


def _split(paths: Paths, settings: FitSettings) -> tuple[Paths, Paths]:
    """The pictures to train on, and those kept out for the threshold."""
    share, batch = settings.held_out_share, settings.train.batch_size
    if share is None:
        raise ValueError("reverse distillation keeps pictures out for the threshold")
    if len(paths) < LEAST_TO_SPLIT:
        raise DataError(
            f"{len(paths)} good pictures are too few: at least {LEAST_TO_SPLIT} are needed, two of "
            "them kept out of the training for the threshold, and 100 or more for a good model"
        )
    kept_out = assign_calibration(len(paths), share, settings.seed)
    training, held_out = _chosen(paths, ~kept_out), _chosen(paths, kept_out)
    if len(training) < batch:
        is_chosen = settings.calibration_split is not None
        fewer = f", a --calibration-split below {share:g}" if is_chosen else ""
        raise DataError(
            f"{len(paths)} good pictures leave {len(training)} to train on ({len(held_out)} are "
            f"kept out for the threshold), and a batch has {batch}. Give more pictures{fewer}, or "
            f"a smaller batch: --set train.batch_size={len(training)}"
        )
    return training, held_out


def _chosen(paths: Paths, which: npt.NDArray[np.bool_]) -> Paths:
    return tuple(path for path, is_in in zip(paths, which.tolist(), strict=True) if is_in)


@full_float32()
def _judge(
    detector: DistilledDetector,
    paths: Paths,
    settings: FitSettings,
    steps: Steps,
    device: torch.device,
) -> tuple[Scores, Scores]:
    """Image scores and map maxima of pictures, float64 ``[N]`` each."""
    detector.to(device)
    found: list[tuple[float, float]] = []
    with steps.step("Scoring held-out pictures", len(paths)) as advance:
        for path in paths:  # one by one, as a camera will
            frame = torch.from_numpy(read_frames((path,), settings.model_size)).to(device)
            score, anomaly_map, _ = detector.predict(frame)
            values = float(score[0]), float(anomaly_map.max())
            if not np.isfinite(values).all():
                raise DataError(
                    f"the held-out score of {path} is {values[0]}, expected a finite number. The "
                    "training has gone wrong: try a smaller learning rate, such as --set "
                    f"train.lr={settings.train.learning_rate / 10:g}"
                )
            found.append(values)
            advance(len(found))
    scores, maxima = np.array(found, np.float64).T
    return scores, maxima
