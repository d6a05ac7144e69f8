"""The normal scores, and the threshold that was found from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from patchline.runtime.manifest.section import Finite, Positive, Rate, Section


class Tail(Section):
    """Generalised Pareto fit of the largest normal scores (peaks over a threshold).

    Attributes:
        start: the score above which the tail begins.
        exceedances: scores above it that the fit has seen.
        shape: xi, maximum likelihood within -1 to 1; below 0 the tail ends somewhere.
        scale: beta, in units of the score.
    """

    start: Finite
    exceedances: Positive
    shape: Finite
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LabelledThreshold(Section):
    """The threshold of largest F1 on labelled pictures; for comparison, it decides nothing."""

    value: Finite
    f1: Rate
    good: Positive
    defective: Positive


class Threshold(Section):
    """A frame whose score is at or above ``value`` is anomalous.

    Attributes:
        value: of the image score.
        map_value: the same rule applied to the largest value of the anomaly map; it draws the
            contour.
        rule: how it was found, for people.
        false_alarm_rate: the expected share of good frames at or above ``value``.
        interval: 95 % interval of the score that this share of good frames reaches; ``None``
            where the threshold was not derived from normal scores.
        supported_rate: the smallest rate that so many normal scores vouch for without their
            tail being extrapolated, 1 / (N + 1).
        supported_value: the threshold for that rate.
        tail: the fit of image scores behind it; ``None`` where none was made.
        f1_max: beside it, where labelled pictures were at hand.
    """

    value: Finite
    map_value: Finite
    rule: str
    false_alarm_rate: Rate
    interval: tuple[Finite, Finite] | None = None
    supported_rate: Rate | None = None
    supported_value: Finite | None = None
    tail: Tail | None = None
    f1_max: LabelledThreshold | None = None


class NormalScores(Section):
    """Image scores of good pictures that the model has not seen, in ascending order.

    ``source`` says how they were had: every picture judged by a bank without it (``cross-fit``),
    pictures that had no part in the model that ships (``calibration-split``), both (``mixed``: a
    model that was extended another way than it was fitted), or pictures of the line (``line``).
    ``carried_over`` says that they were so had with the float32 model, and brought to the scale of
    this one.
    """

    scores: tuple[Finite, ...] = Field(min_length=1)
    map_maxima: tuple[Finite, ...] = Field(min_length=1)
    mean: Finite
    std: Finite
    source: Literal["cross-fit", "calibration-split", "mixed", "line"] = "cross-fit"
    carried_over: bool = False
