"""Boxes of what lies above the map threshold, against SciPy's labelling."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from scipy import ndimage

from patchline.runtime.decisions.event import Region
from patchline.runtime.decisions.regions import MOST_REGIONS, find_regions

MAPS = numpy_st.arrays(
    np.float32,
    numpy_st.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 2.5]),
)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def slow_regions(anomaly_map: Any, map_value: float, picture: tuple[int, int]) -> list[Region]:
    """Every part by itself, with exact fractions."""
    labels, _ = ndimage.label(anomaly_map >= map_value, structure=np.ones((3, 3)))
    found = []
    for at, box in enumerate(ndimage.find_objects(labels), start=1):
        (y, bottom), (x, right) = (
            (
                math.floor(Fraction(side.start * pixels, cells)),
                math.ceil(Fraction(side.stop * pixels, cells)),
            )
            for side, pixels, cells in zip(box, picture, anomaly_map.shape, strict=True)
        )
        peak = float(anomaly_map[labels == at].max())
        found.append((-peak, box[0].start, box[1].start, Region(x, y, right - x, bottom - y, peak)))
    return [region for *_, region in sorted(found, key=lambda part: part[:3])]


@given(MAPS, st.sampled_from([0.25, 1.0, 2.0, 3.0]), SIZES, st.integers(1, 30))
@settings(max_examples=150, deadline=None)
def test_the_regions_are_those_of_scipy(
    anomaly_map: Any, map_value: float, picture: tuple[int, int], most: int
) -> None:
    found = find_regions(anomaly_map, map_value, picture, most)
    assert list(found) == slow_regions(anomaly_map, map_value, picture)[:most]
    for region in found:
        assert region.width >= 1
        assert region.height >= 1
        assert 0 <= region.x <= picture[1] - region.width
        assert 0 <= region.y <= picture[0] - region.height


def test_what_is_at_the_value_is_inside_and_corners_touch() -> None:
    anomaly_map = np.zeros((8, 16), np.float32)
    anomaly_map[1, 2] = 1.0
    anomaly_map[2, 3] = 3.0
    anomaly_map[6, 10:14] = 2.0
    assert find_regions(anomaly_map, 1.0, (80, 160)) == (
        Region(20, 10, 20, 20, 3.0),
        Region(100, 60, 40, 10, 2.0),
    )


def test_a_clean_map_has_none_and_a_full_one_is_the_picture() -> None:
    anomaly_map = np.ones((32, 32), np.float32)
    assert find_regions(anomaly_map, 1.5, (480, 640)) == ()
    assert find_regions(anomaly_map, -1.0, (480, 640)) == (Region(0, 0, 640, 480, 1.0),)


def test_thousands_of_specks_are_cut_to_the_worst() -> None:
    anomaly_map = np.zeros((256, 256), np.float32)
    specks = np.arange(128 * 128, dtype=np.float32).reshape(128, 128) + 1
    anomaly_map[::2, ::2] = np.random.default_rng(0).permutation(specks.ravel()).reshape(128, 128)
    found = find_regions(anomaly_map, 0.5, (256, 256))
    assert [region.peak for region in found] == [128 * 128 - at for at in range(MOST_REGIONS)]
    assert all(anomaly_map[region.y, region.x] == region.peak for region in found)


@pytest.mark.parametrize("order", ["C", "F"])
def test_views_and_read_only_maps_are_taken(order: Any) -> None:
    anomaly_map = np.asarray(np.random.default_rng(1).random((20, 30)), np.float32, order=order)
    anomaly_map.flags.writeable = False
    view = anomaly_map[::2, ::-1]
    assert list(find_regions(view, 0.7, (10, 30), 999)) == slow_regions(view, 0.7, (10, 30))
