"""The frames of a training: held in memory where they fit, else read one batch ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from patchline.export.features import read_frames
from patchline.runtime.contract import ModelSize
from patchline.runtime.preprocess import Frame
from patchline.runtime.progress import Steps

MEMORY_SHARE = 0.5
"""Of the memory budget, at most, for frames."""

_CHANNELS = 3


class TrainingFrames:
    """Pictures at model size, by number.

    Args:
        paths: the pictures.
        size: of the frames.
        budget_bytes: the fit's memory budget; half of it may be taken.
        steps: shows progress.

    Attributes:
        in_memory: whether all frames are held.

    Raises:
        ImageReadError: a picture cannot be read.
    """

    def __init__(
        self, paths: Sequence[Path], size: ModelSize, budget_bytes: int, steps: Steps
    ) -> None:
        self.paths = tuple(paths)
        self._size = size
        needed = len(self.paths) * size.height * size.width * _CHANNELS
        self.in_memory = needed <= MEMORY_SHARE * budget_bytes
        self._held: Frame | None = None
        if self.in_memory:
            held = np.empty((len(self.paths), size.height, size.width, _CHANNELS), np.uint8)
            with steps.step(f"Reading {len(self.paths)} pictures", len(self.paths)) as advance:
                for number, path in enumerate(self.paths):
                    held[number] = read_frames((path,), size)[0]
                    advance(number + 1)
            self._held = held

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Frames uint8 ``[n, H, W, 3]`` of pictures by number.

        Raises:
            ImageReadError: a picture cannot be read any more.
        """
        if self._held is not None:
            return torch.from_numpy(self._held[list(numbers)])
        return torch.from_numpy(read_frames(tuple(self.paths[at] for at in numbers), self._size))

    def batches(self, batches: Sequence[list[int]]) -> Iterator[Tensor]:
        """The frames of each batch; while one is in use, a thread reads the next.

        Raises:
            ImageReadError: as for :meth:`read`.
        """
        if self.in_memory:
            yield from map(self.read, batches)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="frames") as pool:
            ahead: Future[Tensor] | None = None
            for numbers in batches:
                following = pool.submit(self.read, numbers)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()
