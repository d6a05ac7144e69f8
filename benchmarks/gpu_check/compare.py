"""Outputs against ONNX Runtime's: how far apart, and whether that is rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from patchline.runtime.contract import Threshold
from patchline.runtime.engine import Prediction
from patchline.runtime.errors import EngineError

_FLOOR = 0.01
"""Scores below this share of the threshold are compared as if they were that large."""


@dataclass(frozen=True)
class Tolerances:
    """Largest differences accepted; by default float32 against float32, the same as of an export.

    The first two are relative, the map's to its frame's largest value; the influence map lies in 0
    to 1.
    """

    image_score: float = 1e-3
    anomaly_map: float = 1e-3
    influence_map: float = 1e-2


TOLERANCES = {
    "fp32": Tolerances(),
    "fp16": Tolerances(image_score=1e-2, anomaly_map=5e-2, influence_map=0.25),
    "int8": Tolerances(image_score=5e-2, anomaly_map=0.15, influence_map=0.25),
}
"""By the precision in the manifest.

A GPU rounds every tensor to half, and ONNX Runtime's CPU hardly any: torch's half differed from
it, on bottle and pill, by a fifth of what is accepted. INT8 differs by a level wherever sums are
rounded in another order: ONNX Runtime in integers and in float gave 1.7 %, 4.6 % and 0.07.
"""


def differences(
    expected: Prediction, found: Prediction, allowed: Prediction, threshold: Threshold
) -> dict[str, Any]:
    """The largest differences past what is allowed, and on how many verdicts both agree.

    Args:
        expected: what was computed before.
        found: what is computed here.
        allowed: by how much each value may differ because of ties.
        threshold: of the verdicts.

    Raises:
        EngineError: the outputs have other shapes, or hold NaN or infinite values.
    """
    _check(expected, found)
    floor = _FLOOR * abs(threshold.value)
    score, heat, influence = (
        np.maximum(np.abs(wanted - given) - spare, 0)
        for wanted, given, spare in zip(
            *(vars(each).values() for each in (expected, found, allowed)), strict=True
        )
    )
    scores = (expected.image_score, found.image_score)
    heights = np.maximum(np.abs(expected.anomaly_map).max((1, 2)), floor)
    verdicts = [score >= threshold.value for score in scores]
    return {
        "frames": len(scores[0]),
        "image_score_max_relative_error": _largest(
            score / np.maximum(np.abs(expected.image_score), floor)
        ),
        "anomaly_map_max_relative_error": _largest(heat.max((1, 2)) / heights),
        "influence_map_max_error": _largest(influence),
        "verdicts_that_agree": int((verdicts[0] == verdicts[1]).sum()),
    }


def problems(found: dict[str, Any], tolerances: Tolerances) -> list[str]:
    """What of the differences is out of tolerance, as parts of a sentence."""
    limits = {
        "image_score_max_relative_error": tolerances.image_score,
        "anomaly_map_max_relative_error": tolerances.anomaly_map,
        "influence_map_max_error": tolerances.influence_map,
    }
    listed = [
        f"{name} is {found[name]:.2e}, expected at most {limit:.0e}"
        for name, limit in limits.items()
        if not found[name] <= limit
    ]
    if found["verdicts_that_agree"] != found["frames"]:
        listed.append(f"{found['verdicts_that_agree']} of {found['frames']} verdicts agree")
    return listed


def worst(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several comparisons the largest differences, and the sums of what is counted."""
    counted = ("frames", "verdicts_that_agree")
    return {
        name: (sum if name in counted else max)(result[name] for result in results)
        for name in results[0]
    }


def _check(expected: Prediction, found: Prediction) -> None:
    for name, wanted in vars(expected).items():
        given: npt.NDArray[np.float32] = getattr(found, name)
        if given.shape != wanted.shape:
            raise EngineError(f"{name} is {list(given.shape)}, expected {list(wanted.shape)}")
        if not np.isfinite(given).all():
            raise EngineError(f"{name} holds values that are not finite")


def _largest(values: npt.NDArray[Any]) -> float:
    return float(values.max())
