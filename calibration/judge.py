"""Pictures through a model, one by one, with nothing accepted that is no number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchline.runtime.contract import ANOMALY_MAP, IMAGE_SCORE, INFLUENCE_MAP, ModelSize
from patchline.runtime.engine import Engine, Prediction
from patchline.runtime.errors import EngineError, ImageReadError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess

OnUnreadable = Callable[[ImageReadError], None]

Infer = Callable[[Frame], Prediction]
"""Frames uint8 ``[B, H, W, 3]`` BGR -> what a model says of them."""

_DEPLOYED = (
    "The model is damaged or overflows: export it again, and report the picture if that does not "
    "help"
)


@dataclass(frozen=True)
class JudgedPicture:
    """What the engine says of one picture, at model size.

    Attributes:
        path: the picture.
        score: raw image score, finite.
        anomaly_map: float32 ``[H, W]``, finite.
        influence_map: float32 ``[H, W]``, finite.
    """

    path: Path
    score: float
    anomaly_map: npt.NDArray[np.float32]
    influence_map: npt.NDArray[np.float32]


def judge_pictures(
    engine: Engine, paths: Iterable[Path], on_unreadable: OnUnreadable | None = None
) -> Iterator[JudgedPicture]:
    """Judge pictures in the order given, one frame at a time, as a camera does.

    Args:
        engine: any engine.
        paths: pictures of any size and mode.
        on_unreadable: told of each picture that cannot be read, which is then left out; ``None``
            makes the first one an error.

    Raises:
        ImageReadError: a picture cannot be read, and ``on_unreadable`` is ``None``; it is named.
        EngineError: the engine failed, or a score or map holds NaN or infinity; the picture
            is named.
    """
    return judge_each(engine.infer, engine.manifest.model_size, paths, on_unreadable)


def judge_each(
    infer: Infer,
    size: ModelSize,
    paths: Iterable[Path],
    on_unreadable: OnUnreadable | None = None,
    *,
    remedy: str = _DEPLOYED,
) -> Iterator[JudgedPicture]:
    """Judge pictures as :func:`judge_pictures` does, with any model.

    Args:
        infer: the model.
        size: of its frames.
        paths: as there.
        on_unreadable: as there.
        remedy: a sentence for who meets a score or map that is no number.

    Raises:
        ImageReadError: as there.
        EngineError: as there.
    """
    for path in paths:
        try:
            frame = preprocess(read_image(path), size)
        except ImageReadError as error:
            if on_unreadable is None:
                raise
            on_unreadable(error)
            continue
        prediction = infer(frame[None])
        for name in (IMAGE_SCORE, ANOMALY_MAP, INFLUENCE_MAP):
            if not np.isfinite(getattr(prediction, name)).all():
                raise EngineError(f"the {name} of {path} holds NaN or infinite values. {remedy}")
        yield JudgedPicture(
            path,
            float(prediction.image_score[0]),
            prediction.anomaly_map[0],
            prediction.influence_map[0],
        )
