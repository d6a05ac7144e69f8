"""The float32 model and the converted one over the same good pictures, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from patchline.export.precision.masked import MaskedModel, Rows
from patchline.runtime.contract import ANOMALY_MAP, IMAGE_SCORE, INFLUENCE_MAP
from patchline.runtime.engine.base import Prediction
from patchline.runtime.errors import DataError, GateError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess
from patchline.runtime.progress import Advance

MOST_PICTURES = 200
MAP_VALUES = 1 << 14
"""Values of each map that are kept, evenly spread; maps are smooth over 4 pixels."""

OwnRows = Callable[[Path], Rows]
"""The rows of the bank that came from a picture, bool ``[M]``."""

Explain = Callable[[MaskedModel, Frame], str]
"""Says why a model gives values that are not finite."""


@dataclass(frozen=True)
class Pairs:
    """What two models say of N pictures; the first of each pair is the float32 model's.

    Attributes:
        paths: the pictures.
        scores: float64 ``[N, 2]``, image scores.
        map_maxima: float64 ``[N, 2]``, largest value of each anomaly map.
        maps: float32 ``[N, 2, S]``, S values of each anomaly map.
        times_ms: float64 ``[N, 2]``, of one inference.
        left_out: pictures without which the bank has fewer rows than neighbours.
    """

    paths: tuple[Path, ...]
    scores: npt.NDArray[np.float64]
    map_maxima: npt.NDArray[np.float64]
    maps: npt.NDArray[np.float32]
    times_ms: npt.NDArray[np.float64]
    left_out: int = 0

    @property
    def time_ratio(self) -> float:
        """Median time of the converted model in parts of the float32 one's."""
        before, after = np.median(self.times_ms, axis=0)
        return float(after / before)


def evenly_spread(paths: Sequence[Path], most: int = MOST_PICTURES) -> tuple[Path, ...]:
    """At most so many of the pictures, evenly spread over their order."""
    at = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))
    return tuple(paths[i] for i in at)


def compare(
    models: tuple[MaskedModel, MaskedModel],
    paths: Sequence[Path],
    own_rows: OwnRows,
    explain: Explain,
    advance: Advance,
) -> Pairs:
    """Judge good pictures with both models, each by the bank without the picture's own rows.

    Args:
        models: the float32 model, and the converted one.
        paths: the pictures.
        own_rows: of each of them.
        explain: why the converted model gives values that are not finite.
        advance: told how many are done.

    Raises:
        ImageReadError: a picture cannot be read.
        DataError: none can be judged without its own rows.
        GateError: the converted model gives NaN or infinity; the picture is named.
        EngineError: a model cannot be run.
    """
    judged: list[Path] = []
    found: list[tuple[tuple[float, float, npt.NDArray[np.float32], float], ...]] = []
    bank = models[0].manifest.memory_bank
    neighbors = bank.neighbors if bank else 0
    for done, path in enumerate(paths, start=1):
        own = own_rows(path)
        if int((~own).sum()) >= neighbors:
            frame = preprocess(read_image(path), models[0].manifest.model_size)[None]
            if not judged:
                _warm_up(models, frame)
            found.append(_pair(models, frame, own, path, explain, is_first_first=done % 2 == 1))
            judged.append(path)
        advance(done)
    if not judged:
        raise DataError(
            f"without its own rows of the bank none of the {len(paths)} pictures leaves "
            f"{neighbors} rows to be judged by. Give more pictures, or raise --coreset-ratio"
        )
    scores, maxima, times = (
        np.array([[one[i] for one in pair] for pair in found], np.float64) for i in (0, 1, 3)
    )
    maps = np.array([[one[2] for one in pair] for pair in found], np.float32)
    return Pairs(tuple(judged), scores, maxima, maps, times, len(paths) - len(judged))


def _warm_up(models: tuple[MaskedModel, MaskedModel], frame: Frame) -> None:
    for model in models:
        model.infer(frame)


def _pair(
    models: tuple[MaskedModel, MaskedModel],
    frame: Frame,
    own: Rows,
    path: Path,
    explain: Explain,
    *,
    is_first_first: bool,
) -> tuple[tuple[float, float, npt.NDArray[np.float32], float], ...]:
    """Score, largest value, values of the map and milliseconds of both; in turn one is first."""
    found = {}
    for i in (0, 1) if is_first_first else (1, 0):
        started = time.perf_counter()
        prediction = models[i].judge(frame, own)
        elapsed_ms = 1e3 * (time.perf_counter() - started)
        if not _is_finite(prediction):
            raise GateError(
                f"{models[i].graph.name} gives NaN or infinite values for {path}"
                f"{explain(models[i], frame)}"
            )
        anomaly_map = prediction.anomaly_map[0]
        step = -(-anomaly_map.size // MAP_VALUES)
        values = anomaly_map.ravel()[::step].copy()
        found[i] = float(prediction.image_score[0]), float(anomaly_map.max()), values, elapsed_ms
    return found[0], found[1]


def _is_finite(prediction: Prediction) -> bool:
    names = (IMAGE_SCORE, ANOMALY_MAP, INFLUENCE_MAP)
    return all(np.isfinite(getattr(prediction, name)).all() for name in names)
