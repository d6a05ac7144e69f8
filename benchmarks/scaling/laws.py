"""Which law measured values follow: a power of the size, or a constant and a part that grows.

Both have two numbers to find and both are fitted to relative errors, so that the small sizes count
as much as the large ones; the law that comes closer is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.stats

from patchline.runtime.errors import ConfigurationError

CONFIDENCE = 0.95
FEWEST_SIZES = 3
"""Two sizes lie on every law."""

_Values = npt.NDArray[np.float64]
_Interval = tuple[float, float]


@dataclass(frozen=True)
class Expected:
    """What a quantity should do.

    Attributes:
        form: for people, such as ``a + b * rows``.
        exponent: of the part that grows.
        reason: one sentence.
    """

    form: str
    exponent: float
    reason: str


@dataclass(frozen=True)
class PowerLaw:
    """``coefficient * size ** exponent``: least squares of the logarithms.

    Attributes:
        coefficient: value at size 1.
        exponent: the slope of log(value) against log(size).
        interval: 95 % interval of the exponent, by Student's t.
        r_squared: of the logarithms.
        relative_error: root mean square of the residuals in parts of the values.
    """

    coefficient: float
    exponent: float
    interval: _Interval
    r_squared: float
    relative_error: float


@dataclass(frozen=True)
class AffineLaw:
    """``constant + slope * size ** exponent`` with a given exponent, weighted by 1 / value.

    Attributes:
        constant: what a size of 0 would cost.
        constant_interval: its 95 % interval.
        slope: per unit of ``size ** exponent``.
        slope_interval: its 95 % interval.
        exponent: as given.
        r_squared: of the weighted values.
        relative_error: root mean square of the residuals in parts of the values.
    """

    constant: float
    constant_interval: _Interval
    slope: float
    slope_interval: _Interval
    exponent: float
    r_squared: float
    relative_error: float


def fit_power(sizes: Sequence[float], values: Sequence[float]) -> PowerLaw:
    """Fit a power law.

    Args:
        sizes: at least three different ones, above 0.
        values: as many, above 0.

    Raises:
        ConfigurationError: anything else.
    """
    x, y = _checked(sizes, values)
    ones = np.ones_like(x)
    found, errors, r_squared = _least_squares(np.stack([ones, np.log(x)], 1), np.log(y), ones)
    relative = (y - np.exp(found[0]) * x ** found[1]) / y
    return PowerLaw(
        coefficient=float(np.exp(found[0])),
        exponent=float(found[1]),
        interval=_interval(found[1], errors[1], len(x)),
        r_squared=r_squared,
        relative_error=_root_mean_square(relative),
    )


def fit_affine(sizes: Sequence[float], values: Sequence[float], exponent: float = 1.0) -> AffineLaw:
    """Fit a constant and a part that grows with ``size ** exponent``.

    Args:
        sizes: at least three different ones, above 0.
        values: as many, above 0.
        exponent: of the part that grows, above 0.

    Raises:
        ConfigurationError: anything else.
    """
    x, y = _checked(sizes, values)
    if not 0 < exponent < np.inf:
        raise ConfigurationError(f"the exponent is {exponent}, expected a number above 0")
    found, errors, r_squared = _least_squares(np.stack([np.ones_like(x), x**exponent], 1), y, 1 / y)
    relative = (y - found[0] - found[1] * x**exponent) / y
    return AffineLaw(
        constant=float(found[0]),
        constant_interval=_interval(found[0], errors[0], len(x)),
        slope=float(found[1]),
        slope_interval=_interval(found[1], errors[1], len(x)),
        exponent=float(exponent),
        r_squared=r_squared,
        relative_error=_root_mean_square(relative),
    )


def choose_law(
    sizes: Sequence[float], values: Sequence[float], expected: Expected, unit: str
) -> dict[str, Any]:
    """Fit both laws, choose one and say why.

    The constant is only believed where its interval lies above 0.

    Args:
        sizes: as for :func:`fit_power`.
        values: likewise.
        expected: the law expected, with the exponent of the part that grows.
        unit: of the values, such as ``ms``.

    Returns:
        For strict JSON: ``expected``, ``chosen`` (``power`` or ``affine``), ``why``, both laws, and
        ``exponent_at_the_end``: the slope between the two largest sizes.
    """
    power = fit_power(sizes, values)
    affine = fit_affine(sizes, values, expected.exponent)
    chosen, why = _choice(power, affine, unit)
    return {
        "expected": {
            "form": expected.form,
            "exponent": expected.exponent,
            "reason": expected.reason,
        },
        "chosen": chosen,
        "why": why,
        "power": {
            f"coefficient_{unit}": _rounded(power.coefficient),
            "exponent": _rounded(power.exponent),
            "exponent_95": [_rounded(bound) for bound in power.interval],
            "r_squared": round(power.r_squared, 5),
            "relative_error": _rounded(power.relative_error),
        },
        "affine": {
            f"constant_{unit}": _rounded(affine.constant),
            f"constant_95_{unit}": [_rounded(bound) for bound in affine.constant_interval],
            f"slope_{unit}": _rounded(affine.slope),
            f"slope_95_{unit}": [_rounded(bound) for bound in affine.slope_interval],
            "exponent": affine.exponent,
            "r_squared": round(affine.r_squared, 5),
            "relative_error": _rounded(affine.relative_error),
        },
        "exponent_at_the_end": _rounded(exponent_at_the_end(sizes, values)),
    }


def exponent_at_the_end(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log(value) against log(size) between the two largest sizes.

    Where a part of lower order still shows at the small sizes, this is nearer to what comes next
    than the slope over all of them.

    Raises:
        ConfigurationError: as for :func:`fit_power`.
    """
    x, y = _checked(sizes, values)
    order = np.argsort(x)[-2:]
    return float(np.diff(np.log(y[order]))[0] / np.diff(np.log(x[order]))[0])


def _choice(power: PowerLaw, affine: AffineLaw, unit: str) -> tuple[str, str]:
    low, high = affine.constant_interval
    constant = f"the constant is {affine.constant:.3g} {unit} ({low:.3g} to {high:.3g})"
    errors = f"{100 * affine.relative_error:.2g} % off on average, the power law "
    errors += f"{100 * power.relative_error:.2g} %"
    if high < 0:
        return "power", f"{constant}, below 0 and not believed"
    if low <= 0:
        return "power", f"{constant}, which may be none"
    if affine.relative_error >= power.relative_error:
        return "power", f"a constant does not bring it nearer: with it {errors}"
    return "affine", f"{constant}, and with it the law is {errors}"


def _checked(sizes: Sequence[float], values: Sequence[float]) -> tuple[_Values, _Values]:
    x, y = np.asarray(sizes, np.float64), np.asarray(values, np.float64)
    if (
        x.ndim != 1
        or x.shape != y.shape
        or len(np.unique(x)) < FEWEST_SIZES
        or len(x) > len(set(x))
    ):
        raise ConfigurationError(
            f"a law needs at least {FEWEST_SIZES} different sizes with a value each, got "
            f"{x.shape} sizes and {y.shape} values"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all() and (y > 0).all()):
        raise ConfigurationError("a law needs finite sizes and values above 0")
    return x, y


def _least_squares(design: _Values, y: _Values, weights: _Values) -> tuple[_Values, _Values, float]:
    """Coefficients, their standard errors, and R squared around the weighted mean."""
    weighted = design * weights[:, None]
    found, *_ = np.linalg.lstsq(weighted, y * weights, rcond=None)
    residual = float(((y - design @ found) ** 2 * weights**2).sum())
    mean = float((y * weights**2).sum() / (weights**2).sum())
    total = float(((y - mean) ** 2 * weights**2).sum())
    covariance = np.linalg.inv(weighted.T @ weighted) * residual / (len(y) - design.shape[1])
    # Values that do not vary are explained by nothing.
    r_squared = 1 - residual / total if total > 0 else 0.0
    return found.astype(np.float64), np.sqrt(np.diag(covariance)).astype(np.float64), r_squared


def _interval(value: float, error: float, count: int) -> _Interval:
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 2)) * float(error)
    return float(value) - reach, float(value) + reach


def _root_mean_square(values: _Values) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
