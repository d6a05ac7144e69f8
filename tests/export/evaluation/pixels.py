"""Made-up maps and masks, and slow references over every single pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Pair = tuple[np.ndarray, np.ndarray]


def random_set(seed: int, levels: int | None = None) -> tuple[list[Pair], list[np.ndarray]]:
    """Four defective and three good maps of 14 x 11; with ``levels``, full of ties."""
    rng = np.random.default_rng(seed)

    def scores(shift: float) -> np.ndarray:
        values = rng.normal(shift, 1, (14, 11))
        return (values if levels is None else np.round(values * levels / 4)).astype(np.float32)

    pairs = []
    for _ in range(4):
        mask = rng.random((14, 11)) < 0.15
        mask[2:5, 3:7] = True
        pairs.append((np.where(mask, scores(1), scores(0)), mask))
    return pairs, [scores(0) for _ in range(3)]


def all_pixels(defective: list[Pair], good: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of every pixel."""
    labels = [mask.ravel() for _, mask in defective] + [np.zeros(m.size, bool) for m in good]
    maps = [m.ravel() for m, _ in defective] + [m.ravel() for m in good]
    return np.concatenate(labels), np.concatenate(maps)


def regions_of(mask: np.ndarray) -> list[np.ndarray]:
    """Connected regions by flooding, corners included: each a mask of its own."""
    left = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    regions = []
    while left:
        region, todo = np.zeros_like(mask), [left.pop()]
        while todo:
            row, column = todo.pop()
            region[row, column] = True
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            todo.extend(around)
        regions.append(region)
    return regions


def slow_pro_curve(defective: list[Pair], good: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The definition, one distinct score after the other."""
    labels, scores = all_pixels(defective, good)
    regions = [anomaly_map[r] for anomaly_map, mask in defective for r in regions_of(mask)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(scores)[::-1]:
        fpr = (scores[~labels] >= threshold).mean()
        pro = np.mean([(region >= threshold).mean() for region in regions])
        points.append((float(fpr), float(pro)))
    x, y = np.array(points).T
    return x, y


def slow_aupro(defective: list[Pair], good: list[np.ndarray], fpr_limit: float) -> float:
    """The same curve, cut at the limit, trapezoid by trapezoid."""
    x, y = slow_pro_curve(defective, good)
    area = 0.0
    for x0, x1, y0, y1 in zip(x[:-1], x[1:], y[:-1], y[1:], strict=True):
        if x0 >= fpr_limit:
            break
        end = min(x1, fpr_limit)
        at_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0) if x1 > x0 else y1
        area += (end - x0) * (y0 + at_end) / 2
    return area / fpr_limit


@st.composite
def test_sets(draw: Any) -> tuple[list[Pair], list[np.ndarray]]:
    """One to three defective and none to two good maps of small whole numbers."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6))
    maps = hnp.arrays(np.float32, shape, elements=st.integers(-4, 4).map(float))
    masks = hnp.arrays(bool, shape)
    defective = draw(st.lists(st.tuples(maps, masks), min_size=1, max_size=3))
    defective[0][1][0, 0] = True  # something is defective
    defective[0][1][1, 1] = False  # and not everything
    return defective, draw(st.lists(maps, max_size=2))


test_sets.__test__ = False  # type: ignore[attr-defined]  # a strategy
