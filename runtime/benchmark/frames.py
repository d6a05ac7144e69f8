"""The frames that are timed: drawn by chance, or real pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchline.runtime.contract import ModelSize
from patchline.runtime.preprocess import Frame

_SEED = 0
_DRAWN = 16
_MOST_PICTURES = 64


@dataclass(frozen=True)
class FramePool:
    """Frames at model size, and where they are from.

    Attributes:
        frames: uint8 ``[N, H, W, 3]`` BGR.
        source: ``random``, or the name of the folder.
        seed: of random ones.
    """

    frames: Frame
    source: str
    seed: int | None = None

    def feed(self, batch: int) -> Callable[[], Frame]:
        """A function that gives the next batch; each is contiguous and made before it is asked."""
        count = len(self.frames)
        # As many batches as it takes for every frame to have its turn.
        starts = range(0, max(count, batch), batch)
        batches = [
            np.ascontiguousarray(np.take(self.frames, range(at, at + batch), axis=0, mode="wrap"))
            for at in starts
        ]
        return itertools.cycle(batches).__next__


def drawn_frames(size: ModelSize) -> FramePool:
    """Frames of uniformly drawn pixels, the same ones every time.

    What they show does not change the time: the graph does the same work for every frame.
    """
    shape = (_DRAWN, size.height, size.width, 3)
    return FramePool(
        np.random.default_rng(_SEED).integers(0, 256, shape, np.uint8), "random", _SEED
    )


def picture_frames(path: Path, size: ModelSize) -> FramePool:
    """Pictures, resized as the camera's frames are; the first 64 of them.

    Args:
        path: a folder with all below it, or a picture.
        size: of the model.

    Raises:
        SourceOpenError: there is no picture.
        ImageReadError: one cannot be read.
    """
    from patchline.runtime.camera.pictures import list_pictures
    from patchline.runtime.image_file import read_image
    from patchline.runtime.preprocess import preprocess

    files = list_pictures(path) if path.is_dir() else [path]
    frames = [preprocess(read_image(file), size) for file in files[:_MOST_PICTURES]]
    return FramePool(np.stack(frames), path.resolve().name)
