"""The tail of normal scores: generalised Pareto over a high score, with what is not known of it.

Peaks over threshold (Pickands 1975; Coles 2001, chapter 4): the excesses of the largest scores
over the score where they begin follow a generalised Pareto law, whatever the scores' own law.
With tens of excesses the fitted law itself is uncertain, and a quantile of the best fit is passed
by three to five times as many good frames as promised. So the whole posterior of shape and scale
is kept (flat in shape and log scale), and a threshold is the score that the next good frame
reaches with the asked probability, averaged over that posterior (the predictive quantile).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from patchline.runtime import contract
from patchline.runtime.errors import DataError

_Values = npt.NDArray[np.float64]

TAIL_SHARE = 0.1
LEAST_EXCESSES, MOST_EXCESSES = 10, 250
_SHAPES = np.linspace(-1, 1, 81)
_LOG_SCALES = np.linspace(math.log(0.04), math.log(25), 160)  # in units of the mean excess
_SHARE_NODES = 15
_NEGLIGIBLE = 1e-9
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class _Posterior:
    """Generalised Pareto laws ``[n]`` and their weights, which sum to 1."""

    shapes: _Values
    scales: _Values
    weights: _Values


class NormalTail:
    """The law of normal scores: the scores themselves, and beyond them their tail.

    Args:
        scores: float ``[N]`` of good images that the bank has not seen, finite, any order.

    Raises:
        DataError: fewer than two, NaN or infinity, or all of them the same.
    """

    def __init__(self, scores: _Values) -> None:
        self._scores = np.sort(np.asarray(scores, np.float64))
        _check(self._scores)
        count = len(self._scores)
        excesses = _excess_count(self._scores)
        self._start = float(self._scores[count - excesses - 1])
        self._excesses = self._scores[count - excesses :] - self._start
        self._posterior = _posterior(self._excesses)
        # The chance that one more score lies above the k-th of N is (N + 1 - k) / (N + 1).
        self._start_rate = (excesses + 1) / (count + 1)

    @property
    def supported_rate(self) -> float:
        """The smallest rate that needs no extrapolation: the chance to pass the largest score."""
        return 1 / (len(self._scores) + 1)

    def threshold(self, rate: float) -> float:
        """The score that the next good image reaches with probability ``rate``, in (0, 1).

        Falls as ``rate`` rises.

        Raises:
            DataError: the rate is outside (0, 1).
        """
        _check_rate(rate)
        if rate >= self._start_rate:
            # Weibull's plotting position is the one with exactly these chances.
            return float(np.quantile(self._scores, 1 - rate, method="weibull"))
        return self._start + self._excess_at(rate / self._start_rate)

    def interval(self, rate: float) -> tuple[float, float]:
        """95 % interval of the score that the share ``rate`` of all good images reaches.

        Within the scores it is that of order statistics (no law assumed), in the tail the
        posterior's; it always holds :meth:`threshold`.

        Raises:
            DataError: the rate is outside (0, 1).
        """
        value = self.threshold(rate)
        within = rate >= self._start_rate
        low, high = self._interval_of_ranks(rate) if within else self._interval_of_tail(rate)
        return min(low, value), max(high, value)

    def fit(self) -> contract.Tail:
        """The most likely law of the tail."""
        mean = float(self._excesses.mean())
        best = int(np.argmax(self._posterior.weights))
        start = self._posterior.shapes[best], math.log(self._posterior.scales[best] / mean)
        found = optimize.minimize(
            lambda law: -_log_likelihood(self._excesses / mean, law[:1], law[1:]).item(),
            start,
            method="Nelder-Mead",
            bounds=[(_SHAPES[0], _SHAPES[-1]), (_LOG_SCALES[0], _LOG_SCALES[-1])],
        )
        shape, log_scale = found.x
        return contract.Tail(
            start=self._start,
            exceedances=len(self._excesses),
            shape=float(shape),
            scale=mean * math.exp(log_scale),
        )

    def _excess_at(self, probability: float) -> float:
        """The excess that is passed with this probability, given that there is one."""
        law = self._posterior

        def surplus(excess: float) -> float:
            passed = stats.genpareto.sf(excess, law.shapes, scale=law.scales)
            return float(law.weights @ passed) - probability

        upper = float(self._excesses.max())
        while surplus(upper) > 0:
            upper *= 2
        return float(optimize.brentq(surplus, 0.0, upper))

    def _interval_of_ranks(self, rate: float) -> tuple[float, float]:
        test = stats.quantile_test(self._scores, p=1 - rate)
        interval = test.confidence_interval(_CONFIDENCE)
        # Too few scores below (or above) leave that end open: the outermost score is the end.
        low = interval.low if np.isfinite(interval.low) else self._scores[0]
        high = interval.high if np.isfinite(interval.high) else self._scores[-1]
        return float(low), float(high)

    def _interval_of_tail(self, rate: float) -> tuple[float, float]:
        """The posterior's: over the laws of the tail, and over the share of scores in it."""
        count, law = len(self._excesses), self._posterior
        middles = (np.arange(_SHARE_NODES) + 0.5) / _SHARE_NODES
        shares = stats.beta.ppf(middles, count + 1, len(self._scores) - count)
        levels = np.concatenate([self._levels(rate, share) for share in shares])
        weights = np.tile(law.weights / _SHARE_NODES, _SHARE_NODES)
        order = np.argsort(levels)
        reached = np.cumsum(weights[order])
        ends = np.searchsorted(reached, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
        low, high = levels[order][np.minimum(ends, len(levels) - 1)]
        return float(low), float(high)

    def _levels(self, rate: float, share: float) -> _Values:
        """The score reached by ``rate``, per law, if ``share`` of all scores lies in the tail."""
        law = self._posterior
        if rate < share:
            quantiles = stats.genpareto.isf(rate / share, law.shapes, scale=law.scales)
            return np.asarray(self._start + quantiles)
        body = self._scores[: len(self._scores) - len(self._excesses)]
        return np.full(len(law.weights), np.quantile(body, (1 - rate) / (1 - share)))


def is_constant(scores: Sequence[float] | _Values) -> bool:
    """Whether ascending scores are all the same, but for rounding."""
    return bool(scores[-1] - scores[0] <= 1e-9 * abs(scores[-1]))


def _check(scores: _Values) -> None:
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise DataError("scores of good pictures must be finite numbers")
    if len(scores) < 2:
        raise DataError(
            f"{len(scores)} scores of good pictures are too few for a threshold: at least 2 are "
            "needed, and 100 or more to trust it"
        )
    if is_constant(scores):
        raise DataError(
            f"all {len(scores)} scores of good pictures are the same ({scores[0]:.6g}), which "
            "gives no threshold: the pictures are copies of one another, or of a camera that "
            "stands still. Use pictures of different parts"
        )


def _check_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise DataError(f"the false-alarm rate is {rate}, expected a number between 0 and 1")


def _excess_count(scores: _Values) -> int:
    """Scores in the tail; more where the largest are all the same."""
    count = len(scores)
    wanted = min(max(math.ceil(TAIL_SHARE * count), LEAST_EXCESSES), MOST_EXCESSES)
    wanted = min(wanted, max(1, count // 2))
    below_largest = int(np.searchsorted(scores, scores[-1]))
    return max(wanted, count - below_largest)


def _posterior(excesses: _Values) -> _Posterior:
    mean = excesses.mean()
    likelihood = _log_likelihood(excesses / mean, _SHAPES, _LOG_SCALES)
    weights = np.exp(likelihood - likelihood.max()).ravel()
    kept = weights > _NEGLIGIBLE
    shapes, log_scales = np.meshgrid(_SHAPES, _LOG_SCALES, indexing="ij")
    return _Posterior(
        shapes.ravel()[kept],
        mean * np.exp(log_scales.ravel()[kept]),
        weights[kept] / weights[kept].sum(),
    )


def _log_likelihood(excesses: _Values, shapes: _Values, log_scales: _Values) -> _Values:
    """Log-likelihood ``[shapes, scales]`` of excesses ``[n]``, -inf where one cannot be.

    The same as summing ``scipy.stats.genpareto.logpdf``, a row of shapes at a time and in a
    tenth of the time.
    """
    scaled = excesses / np.exp(log_scales)[:, None]
    rows = [_log_densities(scaled, shape) for shape in shapes]
    return np.stack(rows) - len(excesses) * log_scales


def _log_densities(scaled: _Values, shape: float) -> _Values:
    if abs(shape) < 1e-9:
        return np.asarray(-scaled.sum(1))
    inside = 1 + shape * scaled
    possible = (inside > 0).all(1)
    logs = np.log(np.where(inside > 0, inside, 1)).sum(1)
    return np.where(possible, -(1 + 1 / shape) * logs, -np.inf)
