"""Image metrics against counting by hand, and everything that is not defined."""

from __future__ import annotations

import warnings
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.export.evaluation.image_metrics import image_ranking
from patchline.export.evaluation.mean import mean_metrics
from patchline.export.evaluation.ranking import rank
from patchline.export.evaluation.result import Metrics
from patchline.runtime.errors import DataError


def slow_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs in which the defective one scores higher; ties count half."""
    pairs = list(product(scores[labels], scores[~labels]))
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def at_each_threshold(labels: np.ndarray, scores: np.ndarray) -> list[tuple[int, int, int]]:
    """True positives, false positives, false negatives, from the highest threshold down."""
    return [
        (
            int((scores[labels] >= t).sum()),
            int((scores[~labels] >= t).sum()),
            int((scores[labels] < t).sum()),
        )
        for t in np.unique(scores)[::-1]
    ]


def slow_ap(labels: np.ndarray, scores: np.ndarray) -> float:
    points = [(0.0, 1.0)]
    for tp, fp, fn in at_each_threshold(labels, scores):
        points.append((tp / (tp + fn), tp / (tp + fp)))
    return sum((r1 - r0) * p1 for (r0, _), (r1, p1) in pairwise(points))


labelled = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30).filter(
    lambda items: (
        {label for label, _ in items} == {False, True} and len({score for _, score in items}) > 1
    )
)


@settings(max_examples=150, deadline=None)
@given(labelled)
def test_every_figure_is_what_its_definition_gives(items: list[tuple[bool, int]]) -> None:
    labels = np.array([label for label, _ in items])
    scores = np.array([score for _, score in items], float)
    found = image_ranking(scores, labels)
    counted = at_each_threshold(labels, scores)
    assert found.auroc == pytest.approx(slow_auroc(labels, scores), abs=1e-12)
    assert found.ap == pytest.approx(slow_ap(labels, scores), abs=1e-12)
    assert found.f1_max == pytest.approx(max(2 * t / (2 * t + p + n) for t, p, n in counted))
    assert found.iou_max == pytest.approx(max(t / (t + p + n) for t, p, n in counted))


def test_counts_stand_for_repetition() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.random(40) < 0.4, rng.integers(0, 9, 40)
    counts = rng.integers(1, 5, 40)
    once = rank(np.repeat(labels, counts), np.repeat(scores, counts))
    weighted = rank(labels, scores, counts)
    for name in ("auroc", "ap", "f1_max", "iou_max"):
        assert getattr(weighted, name) == pytest.approx(getattr(once, name), abs=1e-12)


def test_a_perfect_ranking_and_an_inverted_one() -> None:
    labels, scores = np.array([False, False, True]), np.array([1.0, 2.0, 3.0])
    perfect, inverted = image_ranking(scores, labels), image_ranking(-scores, labels)
    assert (perfect.auroc, perfect.ap, perfect.f1_max, perfect.iou_max) == (1, 1, 1, 1)
    assert (inverted.auroc, inverted.ap, inverted.f1_max) == (0, pytest.approx(1 / 3), 0.5)


def test_the_roc_runs_from_corner_to_corner() -> None:
    labels, scores = np.array([False, True, False, True]), np.array([1.0, 2.0, 2.0, 3.0])
    roc = image_ranking(scores, labels).roc
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert roc.x.dtype == roc.y.dtype == np.float64
    assert (np.diff(roc.x) >= 0).all() and (np.diff(roc.y) >= 0).all()


@pytest.mark.parametrize(
    ("scores", "labels", "says"),
    [
        ([], [], "there are no test pictures"),
        ([1.0, 2.0], [False, False], r"only good pictures \(2\): .* defective ones .*test/DEFECT"),
        ([1.0, 2.0], [True, True], r"only defective pictures \(2\): .* good ones .*test/good"),
        ([7.5, 7.5, 7.5], [False, True, True], r"all 3 image scores are identical \(7\.5\)"),
    ],
)
def test_what_is_not_defined_is_said(scores: list[float], labels: list[bool], says: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=says):
            image_ranking(np.array(scores), np.array(labels, bool))


def test_the_mean_is_over_the_classes_that_have_the_metric() -> None:
    one = Metrics(image_auroc=0.5, pixel_ap=0.25)
    two = Metrics(image_auroc=1.0, aupro=0.75)
    assert mean_metrics(iter([one, two, Metrics()])) == Metrics(
        image_auroc=0.75, pixel_ap=0.25, aupro=0.75
    )
    assert mean_metrics([]) == Metrics()
