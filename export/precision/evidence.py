"""What a conversion is judged by: own rows of good pictures, labelled pictures, overflows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchline.export.datasets import GoodPictures, labelled_pictures, picture_digests
from patchline.export.evaluation.evaluate import evaluate_class
from patchline.export.evaluation.result import Evaluation
from patchline.export.fit import FittedModel
from patchline.export.precision.compare import OwnRows, Pairs
from patchline.export.precision.masked import MaskedModel, Rows
from patchline.export.precision.overflow import first_overflow
from patchline.runtime.contract import FRAMES, NormalScores
from patchline.runtime.errors import ConfigurationError, GateError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess
from patchline.runtime.progress import Steps

FOREIGN_FACTOR = 2.5
"""A good picture that scores past this multiple of the median is named.

Of 209 and 267 good pictures of two MVTec classes the highest scores 1.8 and 1.5 times the median.
"""

_NAMED = 3


def own_rows_of(fitted: FittedModel) -> OwnRows:
    """Which rows of the bank came from a picture (or a copy of it).

    Raises:
        ConfigurationError: the model does not say.
    """
    rows = fitted.row_pictures
    if rows is None:
        raise ConfigurationError(
            f"{fitted.pictures.class_name} was fitted by an older Patchline, and does not say "
            "which picture each row of its bank came from: what its conversion changes cannot be "
            "measured. Fit it anew from all its pictures"
        )
    came_from = np.array(fitted.picture_digests)[rows.numpy()]

    def own_rows(path: Path) -> Rows:
        found: Rows = came_from == picture_digests((path,))[0]
        return found

    return own_rows


def data_of(pictures: GoodPictures) -> Path | None:
    """The folder of class folders, where the pictures lie in MVTec layout under their class."""
    folder = pictures.folder.resolve()
    is_layout = folder.parts[-3:] == (pictures.class_name, "train", "good")
    return folder.parents[2] if is_layout else None


def evaluate_labelled(model: MaskedModel, data: Path | None, steps: Steps) -> Evaluation | None:
    """Judge the labelled pictures of the class, where there are any.

    Raises:
        ImageReadError: a picture cannot be read.
        EngineError: the model cannot be run, or gives NaN or infinity.
    """
    name = model.manifest.class_name
    count = 0 if data is None else len(labelled_pictures(data, name))
    if data is None or not count:
        return None
    with steps.step(f"Judging the test set in {model.manifest.precision}", count) as advance:
        return evaluate_class(model, data, class_name=name, advance=advance)


def check_overflow(model: MaskedModel, picture: Path) -> None:
    """Refuse an FP16 graph in which a tensor of its own type is not finite, node by node.

    ONNX Runtime's CPU computes half precision in float32 where it can, so that such a graph may
    give sound values here and NaN on a GPU.

    Raises:
        GateError: there is such a tensor; the first node is named.
        ImageReadError: the picture cannot be read.
    """
    frame = preprocess(read_image(picture), model.manifest.model_size)[None]
    if first_overflow(model.graph, {FRAMES: frame, **model.bank}) is not None:
        raise GateError(
            f"in half precision {model.manifest.class_name} gives NaN or infinite values for "
            f"{picture}{explain_overflow(model, frame)}"
        )


def explain_overflow(model: MaskedModel, frame: Frame) -> str:
    """Which node of a graph gives the first value that is not finite, as the end of a sentence."""
    node = first_overflow(model.graph, {FRAMES: frame, **model.bank})
    other = "fp32" if model.manifest.memory_bank is None else "int8 or fp32"
    where = "" if node is None else f", first in {node}"
    return (
        f"{where}. Numbers past 65504 do not fit into half precision: export it with --precision "
        f"{other}"
    )


def foreign_pictures(pairs: Pairs, normal: NormalScores) -> str | None:
    """A sentence where good pictures score far above the normal range."""
    median = float(np.median(normal.scores))
    scores = pairs.scores[:, 0]
    found = [int(i) for i in np.argsort(-scores) if scores[i] > FOREIGN_FACTOR * median > 0]
    if not found:
        return None
    named = ", ".join(f"{pairs.paths[i].name} ({scores[i]:.4g})" for i in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (
        f"{len(found)} of {len(scores)} pictures score more than {FOREIGN_FACTOR:g} times the "
        f"median of normal scores ({median:.4g}): {named}{more}. If they are not of this product, "
        "or defective, remove them: the conversion was calibrated and judged with them"
    )
