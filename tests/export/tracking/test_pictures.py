"""Example pictures: the frame beside the frame with its heat map, in RGB."""

from __future__ import annotations

import numpy as np
import pytest

from patchline.export.tracking.pictures import LONGEST_PX, example_picture
from patchline.runtime.errors import FrameError

BLUE = np.zeros((40, 60, 3), np.uint8)
BLUE[..., 0] = 200


def test_the_left_half_is_the_frame_in_rgb() -> None:
    picture = example_picture(BLUE, np.zeros((40, 60), np.float32), 1.0)
    assert picture.shape == (40, 120, 3)
    assert picture.dtype == np.uint8
    assert (picture == (0, 0, 200)).all()  # below the threshold the right half is clean, too


def test_the_right_half_is_tinted_where_the_map_is_high() -> None:
    anomaly_map = np.zeros((20, 30), np.float32)  # smaller than the frame
    anomaly_map[5:15, 5:15] = 3.0
    picture = example_picture(BLUE, anomaly_map, 1.0)
    left, right = picture[:, :60], picture[:, 60:]
    is_tinted = (right != left).any(axis=2)
    assert is_tinted[10:30, 10:30].all()
    assert not is_tinted[:, 36:].any()
    red, _, blue = right[20, 20]
    assert red > blue  # the hot end of the colours


def test_a_large_frame_is_shrunk_with_its_shape() -> None:
    frame = np.zeros((1000, 2000, 3), np.uint8)
    picture = example_picture(frame, np.zeros((10, 20), np.float32), 1.0)
    assert picture.shape == (LONGEST_PX // 2, 2 * LONGEST_PX, 3)


@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 4), (5,)])
def test_a_map_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FrameError, match="anomaly map"):
        example_picture(BLUE, np.zeros(shape, np.float32), 1.0)


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(FrameError, match="float64"):
        example_picture(np.zeros((4, 4, 3)), np.zeros((4, 4), np.float32), 1.0)  # type: ignore[arg-type]
