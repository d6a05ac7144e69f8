"""Charts and tiles: bins, curves, colours."""

from __future__ import annotations

import base64
import re
import sys
import xml.etree.ElementTree as ET

import cv2
import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.export.evaluation.report import tiles
from patchline.export.evaluation.report.charts import (
    draw_histogram,
    draw_pro,
    draw_roc,
    score_edges,
)
from patchline.export.evaluation.result import Curve
from tests.programs import run_program

from .evaluations import CURVE

SCORES = st.floats(-1e6, 1e6)


@given(st.lists(SCORES, min_size=1, max_size=50), SCORES)
def test_every_score_has_a_bin_on_the_side_it_was_judged_on(
    scores: list[float], threshold: float
) -> None:
    edges = score_edges(np.array(scores), threshold)
    counts, _ = np.histogram(scores, edges)
    assert counts.sum() == len(scores)
    assert threshold in edges
    assert (np.diff(edges) > 0).all()
    assert counts[edges[:-1] >= threshold].sum() == sum(s >= threshold for s in scores)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-9, 1e9])
def test_scores_that_are_all_alike_have_bins_too(value: float) -> None:
    edges = score_edges(np.full(7, value), value)
    assert np.histogram(np.full(7, value), edges)[0].sum() == 7


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def bars(svg: str, paint: str) -> list[float]:
    """Heights of the bars of one colour, in units of the drawing."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: var\({paint}\)', svg)
    points = [re.findall(r"[ML] (\S+) (\S+)", path) for path in paths]
    return [max(float(y) for _, y in p) - min(float(y) for _, y in p) for p in points]


def test_the_histogram_has_the_counts_and_the_threshold() -> None:
    svg = draw_histogram([1, 1, 1, 1.01], [2.0, 9.0], 1.5, name="a")
    assert {"4 good", "2 defective", "threshold 1.500", "image score"} <= set(texts(svg))
    good = sorted(bars(svg, "--good"), reverse=True)
    defective = sorted(bars(svg, "--defect"), reverse=True)
    assert [height for height in good if height > 1] == [good[0]]
    assert len([height for height in defective if height > 1]) == 2
    assert defective[0] == pytest.approx(defective[1])


def test_one_good_picture_is_seen_beside_hundreds() -> None:
    svg = draw_histogram([1.0], [2.0 + i / 100 for i in range(500)], 1.5, name="a")
    assert max(bars(svg, "--good")) > 0.8 * max(bars(svg, "--defect"))


@pytest.mark.parametrize(("good", "defective"), [([1.0], []), ([], [1.0]), ([1.0], [1.0])])
def test_a_histogram_of_one_kind_only(good: list[float], defective: list[float]) -> None:
    assert f"{len(defective)} defective" in texts(draw_histogram(good, defective, 1.0, name="a"))


def test_roc_shows_what_there_is() -> None:
    def legend(svg: str) -> set[str]:
        return {"pixels", "images", "images, at the threshold"} & set(texts(svg))

    assert len(legend(draw_roc(CURVE, CURVE, (0.1, 0.9), name="a"))) == 3
    assert legend(draw_roc(CURVE, None, None, name="a")) == {"images"}
    assert legend(draw_roc(None, CURVE, None, name="a")) == {"pixels"}


def test_the_shaded_area_is_that_of_aupro() -> None:
    """The polygon's area in the drawing against the integral of the curve, up to the limit."""
    x = np.linspace(0, 1, 101)
    curve = Curve(x, np.sqrt(x))
    svg = draw_pro(curve, 0.25, name="a")
    path = re.search(r'Collection_1">\s*<defs>\s*<path id="\S+" d="([^"]*)"', svg)
    assert path is not None
    points = np.array([(float(a), float(b)) for a, b in re.findall(r"[ML] (\S+) (\S+)", path[1])])
    box = re.search(r'patch_2">\s*<path d="([^"]*)"', svg)
    assert box is not None
    corners = np.array([(float(a), float(b)) for a, b in re.findall(r"[ML] (\S+) (\S+)", box[1])])
    unit = np.ptp(corners[:, 0]) * np.ptp(corners[:, 1]) / 1.02  # the axis ends at 1.02
    assert _area(points) / unit == pytest.approx(2 / 3 * 0.25**1.5, rel=5e-3)


def _area(points: np.ndarray) -> float:
    x, y = points.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


@pytest.mark.parametrize("limit", [0.01, 0.3, 1.0])
def test_the_limit_is_marked(limit: float) -> None:
    assert f"limit {limit:g}" in texts(draw_pro(CURVE, limit, name="a"))


def test_identifiers_differ_from_drawing_to_drawing_and_lead_somewhere() -> None:
    drawings = [draw_pro(CURVE, 0.3, name=name) for name in ("a", "b")]
    identifiers = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in drawings]
    assert identifiers[0].isdisjoint(identifiers[1])
    for svg, known in zip(drawings, identifiers, strict=True):
        leads = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
        assert leads
        assert leads <= known


def test_drawings_are_the_same_each_time_and_leave_nothing_behind() -> None:
    before = dict(matplotlib.rcParams)
    first, second = (draw_histogram([1.0], [2.0], 1.5, name="a") for _ in range(2))
    assert first == second
    assert dict(matplotlib.rcParams) == before
    assert "<metadata" not in first
    assert "<style" not in first


def test_pyplot_is_not_loaded() -> None:
    """In a process of its own, because other tests may have loaded it."""
    code = (
        "import sys\n"
        "from patchline.export.evaluation.report.charts import draw_histogram\n"
        "draw_histogram([1.0], [2.0], 1.5, name='a')\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = run_program([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_colours_come_from_the_page() -> None:
    svg = draw_histogram([1.0], [2.0], 1.5, name="a") + draw_roc(CURVE, CURVE, (0, 1), name="b")
    assert re.findall(r"#[0-9a-f]{6}\b", svg) == []
    paints = set(re.findall(r"var\((--\w+)\)", svg))
    assert {"--good", "--defect", "--ink", "--pixels"} <= paints


FRAME = np.full((20, 30, 3), 128, np.uint8)


def test_a_quiet_heat_map_leaves_the_picture_alone() -> None:
    tile = tiles.heat_tile(FRAME, np.full((20, 30), 0.5, np.float32), 1.0)
    np.testing.assert_array_equal(tile, FRAME)
    assert tile is not FRAME


def test_heat_is_relative_to_the_threshold() -> None:
    anomaly_map = np.linspace(0, 2, 600, dtype=np.float32).reshape(20, 30)
    np.testing.assert_array_equal(
        tiles.heat_tile(FRAME, anomaly_map, 1.0), tiles.heat_tile(FRAME, 3 * anomaly_map, 3.0)
    )
    assert not (tiles.heat_tile(FRAME, anomaly_map, 1.0)[-2:] == FRAME[-2:]).all()


@pytest.mark.parametrize("map_value", [0.0, -1.0])
def test_heat_of_an_odd_threshold_is_drawn_all_the_same(map_value: float) -> None:
    tile = tiles.heat_tile(FRAME, np.ones((20, 30), np.float32), map_value)
    assert tile.shape == FRAME.shape


def test_influence_has_a_fixed_range() -> None:
    half = np.full((4, 4), 0.5, np.float32)
    mixed = np.array([[-1.0, 0.0, 0.5, 1.0, 7.0]], np.float32)
    colors = tiles.influence_tile(mixed)[0]
    assert (tiles.influence_tile(half) == colors[2]).all()
    assert (colors[0] == colors[1]).all()
    assert (colors[3] == colors[4]).all()
    assert len({tuple(color) for color in colors}) == 3


def test_ground_truth_is_filled_and_the_rest_is_left_alone() -> None:
    mask = np.zeros((20, 30), bool)
    mask[8:12, 10:20] = True
    tile = tiles.truth_tile(FRAME, mask)
    assert (tile[mask] != FRAME[mask]).any(axis=1).all()
    far = np.ones_like(mask)
    far[4:16, 6:24] = False
    np.testing.assert_array_equal(tile[far], FRAME[far])
    assert (FRAME == 128).all()


def test_a_defect_of_one_pixel_is_not_hidden_by_its_outline() -> None:
    mask = np.zeros((20, 30), bool)
    mask[10, 15] = True
    expected = 128 * 0.4 + np.array([230, 50, 170]) * 0.6
    np.testing.assert_allclose(tiles.truth_tile(FRAME, mask)[10, 15], expected, atol=1)


@pytest.mark.parametrize(("shape", "expected"), [((20, 30), (20, 30)), ((400, 640), (200, 320))])
def test_a_tile_is_a_jpeg_of_320_px_at_most(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    picture = np.full((*shape, 3), 90, np.uint8)
    head, content = tiles.data_uri(picture).split(",")
    assert head == "data:image/jpeg;base64"
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape[:2] == expected
    assert np.abs(decoded.astype(int) - 90).max() <= 2


def test_the_legends_are_the_colours_of_the_tiles() -> None:
    influence, heat = tiles.influence_colors(), tiles.heat_colors()
    blue, green, red = tiles.influence_tile(np.ones((1, 1), np.float32))[0, 0]
    assert influence[-1] == f"#{red:02x}{green:02x}{blue:02x}"
    assert heat[0] == "#d7d7d7"  # below the first tint nothing is drawn
    assert len(set(heat)) > len(heat) / 2
