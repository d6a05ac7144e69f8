"""The drawn part: same bytes for the same seed, exact masks, every defect visible."""

from __future__ import annotations

import itertools
import time

import numpy as np
import numpy.typing as npt
import pytest

from patchline.runtime.camera.defects import DAMAGES
from patchline.runtime.camera.test_pattern import DEFECTS, LARGEST_PX, SMALLEST_PX, draw_part
from patchline.runtime.errors import ConfigurationError

SMALL = (120, 120)
SEEDS = range(12)
MEDIUM = (240, 240)


def changed(seed: int, defect: str, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    good, _ = draw_part(seed, size=size)
    bad, _ = draw_part(seed, defect=defect, size=size)
    differs: npt.NDArray[np.bool_] = (good != bad).any(axis=2)
    return differs


def test_a_good_part_is_a_camera_frame_without_a_mask() -> None:
    frame, mask = draw_part(3)
    assert frame.shape == (480, 480, 3)
    assert frame.dtype == mask.dtype == np.uint8
    assert frame.flags.c_contiguous
    assert mask.shape == (480, 480)
    assert not mask.any()


@pytest.mark.parametrize("defect", [None, *DEFECTS])
def test_the_same_seed_gives_the_same_bytes(defect: str | None) -> None:
    first, first_mask = draw_part(5, defect=defect, size=SMALL)
    draw_part(6, size=SMALL)  # no state is left behind
    again, again_mask = draw_part(5, defect=defect, size=SMALL)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first_mask, again_mask)


def test_another_seed_gives_another_picture() -> None:
    frames = [draw_part(seed, size=SMALL)[0].tobytes() for seed in SEEDS]
    assert len(set(frames)) == len(frames)


def test_global_random_state_is_neither_used_nor_changed() -> None:
    np.random.seed(1)
    before = np.random.random_sample()
    np.random.seed(1)
    frame, _ = draw_part(5, size=SMALL)
    assert np.random.random_sample() == before
    np.random.seed(2)
    np.testing.assert_array_equal(frame, draw_part(5, size=SMALL)[0])


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("size", [SMALL, (96, 200)])
def test_outside_the_mask_nothing_differs_from_the_good_part(
    defect: str, size: tuple[int, int]
) -> None:
    for seed in SEEDS:
        _, mask = draw_part(seed, defect=defect, size=size)
        assert not changed(seed, defect, size)[mask == 0].any(), f"seed {seed}"


@pytest.mark.parametrize("defect", DEFECTS)
def test_inside_the_mask_nearly_every_pixel_differs(defect: str) -> None:
    for seed in SEEDS:
        _, mask = draw_part(seed, defect=defect, size=MEDIUM)
        assert changed(seed, defect, MEDIUM)[mask == 255].mean() > 0.9, f"seed {seed}"


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("size", [(64, 64), (64, 300), (200, 200)])
def test_no_mask_is_empty_or_covers_half_the_picture(defect: str, size: tuple[int, int]) -> None:
    for seed in range(40):
        _, mask = draw_part(seed, defect=defect, size=size)
        assert set(np.unique(mask)) == {0, 255}
        assert 3 / mask.size < (mask > 0).mean() < 0.5, f"seed {seed}"


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_vary_in_place_and_size(defect: str) -> None:
    masks = [draw_part(seed, defect=defect, size=SMALL)[1] > 0 for seed in SEEDS]
    areas = [int(mask.sum()) for mask in masks]
    middles = {tuple(np.argwhere(mask).mean(axis=0).round()) for mask in masks}
    assert max(areas) > 1.3 * min(areas)
    assert len(middles) > len(masks) // 2


def test_a_defect_can_be_seen() -> None:
    for seed, defect in itertools.product(SEEDS, DEFECTS):
        good, _ = draw_part(seed, size=MEDIUM)
        bad, mask = draw_part(seed, defect=defect, size=MEDIUM)
        difference = np.abs(good.astype(int) - bad.astype(int)).max(axis=2)[mask > 0]
        assert np.quantile(difference, 0.9) > 25, f"{defect}, seed {seed}"


@pytest.mark.parametrize("size", [(64, 64), (90, 300), (300, 90)])
def test_height_comes_before_width(size: tuple[int, int]) -> None:
    frame, mask = draw_part(0, size=size)
    assert frame.shape[:2] == mask.shape == size


def test_the_picture_is_exposed_well() -> None:
    for seed in SEEDS:
        frame, _ = draw_part(seed)
        assert 30 < frame.mean() < 160
        assert (frame == 255).mean() < 0.01
        assert np.unique(frame).size > 150


def test_the_names_of_the_defects_are_those_that_can_be_drawn() -> None:
    assert tuple(DAMAGES) == DEFECTS


def test_an_unknown_defect_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'crack'.*chip, scratch, contamination, missing"):
        draw_part(0, defect="crack")


@pytest.mark.parametrize(
    "size", [(0, 480), (-1, 10), (SMALLEST_PX - 1, 480), (480, LARGEST_PX + 1)]
)
def test_an_absurd_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigurationError, match=f"{SMALLEST_PX} to {LARGEST_PX} px"):
        draw_part(0, size=size)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="seed is -1"):
        draw_part(-1)


def test_drawing_is_quick() -> None:
    draw_part(0)
    times_s = []
    for seed in range(10):
        start = time.perf_counter()
        draw_part(seed)
        times_s.append(time.perf_counter() - start)
    # About 0.014 s on a quiet core of 2024; the margin is for a busy machine.
    assert min(times_s) < 0.15
