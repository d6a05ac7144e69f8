"""The frames that are timed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from patchline.runtime.benchmark.frames import FramePool, drawn_frames, picture_frames
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ImageReadError, SourceOpenError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import preprocess

SIZE = ModelSize(height=24, width=32)


def pool(count: int) -> FramePool:
    frames = np.zeros((count, 4, 4, 3), np.uint8)
    frames += np.arange(count, dtype=np.uint8)[:, None, None, None]
    return FramePool(frames, "random", 0)


class TestFeed:
    @pytest.mark.parametrize("count", [1, 3, 16])
    @pytest.mark.parametrize("batch", [1, 2, 5, 16, 20])
    def test_batches_go_round_and_every_frame_has_its_turn(self, count: int, batch: int) -> None:
        feed, seen = pool(count).feed(batch), set()
        for _ in range(count + 1):
            given = feed()
            assert given.shape == (batch, 4, 4, 3) and given.dtype == np.uint8
            assert given.flags.c_contiguous
            numbers = given[:, 0, 0, 0].tolist()
            assert numbers == [(numbers[0] + at) % count for at in range(batch)]
            seen |= set(numbers)
        assert seen == set(range(count))

    def test_nothing_is_made_while_it_is_asked(self) -> None:
        feed = pool(4).feed(2)
        first, _, again = feed(), feed(), feed()
        assert again is first


def test_drawn_frames_are_the_same_every_time() -> None:
    one, two = drawn_frames(SIZE), drawn_frames(SIZE)
    np.testing.assert_array_equal(one.frames, two.frames)
    assert one.frames.shape == (16, 24, 32, 3) and (one.source, one.seed) == ("random", 0)
    assert one.frames.min() == 0 and one.frames.max() == 255


class TestPictures:
    def test_a_folder_in_natural_order_resized_as_a_cameras_frames(self, pictures: Path) -> None:
        found = picture_frames(pictures, SIZE)
        names = ["1.png", "2.jpg", "10.png", "late/1.png", "late/2.bmp"]
        expected = [preprocess(read_image(pictures / name), SIZE) for name in names]
        np.testing.assert_array_equal(found.frames, np.stack(expected))
        assert (found.source, found.seed) == ("pictures", None)

    def test_one_picture(self, pictures: Path) -> None:
        assert picture_frames(pictures / "2.jpg", SIZE).frames.shape == (1, 24, 32, 3)

    def test_no_more_than_64(self, tmp_path: Path) -> None:
        for index in range(70):
            cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((8, 8, 3), index, np.uint8))
        found = picture_frames(tmp_path, SIZE)
        assert found.frames[:, 0, 0, 0].tolist() == list(range(64))

    def test_refuses_a_folder_without_pictures_and_what_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(SourceOpenError, match="holds no picture"):
            picture_frames(tmp_path, SIZE)
        (tmp_path / "note.png").write_text("x")
        with pytest.raises(ImageReadError, match=r"note\.png: not a picture"):
            picture_frames(tmp_path, SIZE)
        with pytest.raises(ImageReadError, match="gone: No such file"):
            picture_frames(tmp_path / "gone", SIZE)
