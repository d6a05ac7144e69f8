"""How alike two models rank pictures, and how far chance may have lowered that.

With good pictures alone, the correlation of a sound model lies below that with labelled pictures,
whose scores are wider apart, and of a few pictures it is often far from that of many.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

_Values = npt.NDArray[np.float64]

_CONFIDENCE = 0.95


def rank_correlation(before: _Values, after: _Values) -> float:
    """Spearman's; of scores that are all the same 1 if those after are so too, otherwise 0.

    Args:
        before: float64 ``[N]``, finite.
        after: float64 ``[N]``, finite.
    """
    if np.ptp(before) == 0 or np.ptp(after) == 0:
        return float(np.ptp(before) == np.ptp(after))
    return float(stats.spearmanr(before, after).statistic)


def highest_correlation(correlation: float, pictures: int) -> float:
    """Upper end of the one-sided 95 % interval of a rank correlation: what many more may have.

    Fisher's transformation, with the variance of Bonett and Wright (Psychometrika 65, 2000).

    Args:
        correlation: of the pictures, -1 to 1.
        pictures: how many.

    Raises:
        ValueError: fewer than four pictures, of which nothing is known.
    """
    if pictures < 4:
        raise ValueError(f"{pictures} pictures give no interval, at least 4 do")
    inside = float(np.clip(correlation, -1 + 1e-12, 1 - 1e-12))
    deviation = np.sqrt((1 + inside**2 / 2) / (pictures - 3))
    return float(np.tanh(np.arctanh(inside) + stats.norm.ppf(_CONFIDENCE) * deviation))
