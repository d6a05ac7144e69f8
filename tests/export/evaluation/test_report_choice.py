"""Which pictures are shown, on scores made by hand."""

from __future__ import annotations

import pytest

from patchline.export.evaluation.report import choice
from patchline.export.evaluation.result import ScoredPicture

from .evaluations import scored

EVERY = [
    choice.missed_defects,
    choice.false_alarms,
    choice.close_calls,
    choice.clearest_finds,
    choice.quietest_good,
]


def names(pictures: list[ScoredPicture]) -> list[str]:
    return [item.picture.path.name for item in pictures]


GOOD = [scored(s, name=n) for s, n in ((0.2, "a"), (0.9, "b"), (1.0, "c"), (3.0, "d"), (0.2, "e"))]
BAD = [
    scored(s, defect, name=n)
    for s, defect, n in (
        (0.99, "chip", "k"),
        (0.5, "chip", "l"),
        (1.0, "chip", "m"),
        (9.0, "dirt", "n"),
        (8.0, "dirt", "o"),
        (2.0, "hole", "p"),
        (2.0, "hole", "q"),
    )
]


def test_a_defect_below_the_threshold_is_missed_the_lowest_first() -> None:
    assert names(choice.missed_defects(GOOD + BAD, 1.0)) == ["l", "k"]


def test_a_good_part_at_the_threshold_is_a_false_alarm_the_highest_first() -> None:
    assert names(choice.false_alarms(GOOD + BAD, 1.0)) == ["d", "c"]


def test_close_calls_are_right_and_the_nearest_first() -> None:
    # At the threshold itself: the defect is right, the good part is not.
    assert names(choice.close_calls(GOOD + BAD, 1.0)) == ["m", "b", "a", "e", "p", "q", "o", "n"]


def test_the_clearest_finds_show_every_kind_first() -> None:
    assert names(choice.clearest_finds(GOOD + BAD, 1.0)) == ["n", "p", "m", "o", "q"]


def test_equal_finds_are_all_kept() -> None:
    """Pictures that are equal in all but their place are still two."""
    twins = [scored(2.0, "chip", "a"), scored(2.0, "chip", "b"), scored(2.0, "chip", "c")]
    assert names(choice.clearest_finds(twins, 1.0)) == ["a", "b", "c"]


def test_the_quietest_good_parts_are_below_the_threshold() -> None:
    assert names(choice.quietest_good(GOOD + BAD, 1.0)) == ["a", "e", "b"]


def test_equal_scores_keep_their_order() -> None:
    pictures = [scored(0.5, "chip", name=n) for n in "zyx"]
    assert names(choice.missed_defects(pictures, 1.0)) == ["z", "y", "x"]
    pictures = [scored(1.5, name=n) for n in "zyx"]
    assert names(choice.false_alarms(pictures, 1.0)) == ["z", "y", "x"]


@pytest.mark.parametrize("choose", EVERY)
def test_no_pictures_give_none(choose: choice.Choice) -> None:
    assert choose([], 1.0) == []


@pytest.mark.parametrize("choose", EVERY)
def test_the_pictures_given_are_not_touched(choose: choice.Choice) -> None:
    pictures = tuple(GOOD + BAD)
    choose(pictures, 1.0)
    assert pictures == tuple(GOOD + BAD)


def test_every_picture_is_missed_a_false_alarm_or_right() -> None:
    wrong = choice.missed_defects(GOOD + BAD, 1.0) + choice.false_alarms(GOOD + BAD, 1.0)
    right = choice.close_calls(GOOD + BAD, 1.0)
    assert sorted(names(wrong + right)) == sorted(names(GOOD + BAD))
