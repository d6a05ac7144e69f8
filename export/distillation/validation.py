"""The labelled test pictures of a class, judged by the model under training.

For watching alone. Nothing is decided by them, least of all which epoch is exported: a model that
was chosen by its test set has metrics that no other picture will bear out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from patchline.calibration.judge import judge_each
from patchline.export.distillation.detector import DistilledDetector
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.evaluation.evaluate import Judge, evaluate_test_set
from patchline.export.evaluation.test_set import load_test_set
from patchline.export.tracking.base import Tracker
from patchline.export.tracking.examples import fixed_heat_maps
from patchline.export.tracking.metrics_log import MetricsLog
from patchline.runtime.contract import ModelSize
from patchline.runtime.engine import Prediction
from patchline.runtime.errors import DataError, PatchlineError
from patchline.runtime.preprocess import Frame

_REMEDY = "The training may be diverging: see whether its loss rises"


class Validation:
    """Judges a test set, and tells a tracker its metrics and some heat maps.

    A training is the same with it as without. The model is left frozen and in evaluation mode,
    which the training undoes; nothing is drawn from a generator, and no batch norm is touched.

    Args:
        folder: of the class, in MVTec layout.
        size: of the model's frames.
        tracker: is told ``examples/CLASS/fixed``, the same pictures each time.
        metrics: are told the metrics.
        exported_epoch: which is not judged here, since its exported file will be; ``None``: each
            is judged.
        tell: given one sentence where the pictures cannot be judged; nothing is tried again then.

    Raises:
        ClassNotFoundError: no such folder.
        DataError: it has no test pictures.
        ImageReadError: a defective picture cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        size: ModelSize,
        tracker: Tracker,
        metrics: MetricsLog,
        *,
        exported_epoch: int | None = None,
        tell: Callable[[str], None],
    ) -> None:
        self._test_set = load_test_set(folder.parent, folder.name, size)
        if not self._test_set.pictures:
            raise DataError(f"{folder / 'test'} holds no labelled pictures to judge a model by")
        self._tracker, self._metrics, self._tell = tracker, metrics, tell
        self._exported_epoch, self._is_given_up = exported_epoch, False

    def __call__(self, model: ReverseDistillation, epoch: int) -> None:
        """Judge with the model as it is after so many epochs."""
        if self._is_given_up or epoch == self._exported_epoch:
            return
        try:
            self._evaluate(model, epoch)
        except PatchlineError as error:
            self._is_given_up = True
            self._tell(
                f"{self._metrics.class_name} is no longer evaluated during its training: {error}"
            )

    def _evaluate(self, model: ReverseDistillation, epoch: int) -> None:
        judge = judge_of(model)
        found = evaluate_test_set(judge, self._test_set)
        self._metrics.tell(found.metrics, step=epoch)
        shown = fixed_heat_maps(judge, found.pictures, model.size)
        self._tracker.images(f"examples/{self._metrics.class_name}/fixed", shown, step=epoch)


def judge_of(model: ReverseDistillation) -> Judge:
    """What judges pictures as the exported model would, where the model is; freezes it."""
    device = next(model.parameters()).device
    detector = DistilledDetector(model).to(device)

    def infer(frames: Frame) -> Prediction:
        outputs = detector.predict(torch.from_numpy(np.ascontiguousarray(frames)).to(device))
        return Prediction(*(output.cpu().numpy() for output in outputs))

    return functools.partial(judge_each, infer, model.size, remedy=_REMEDY)
