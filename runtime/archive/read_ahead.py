"""Pictures are read and brought to model size in threads, so many ahead, while the engine works."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ImageReadError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess

_AHEAD = 4  # pictures per thread; they wait at model size, so that large ones cost no memory


@dataclass(frozen=True)
class ReadPicture:
    """One picture, or why it could not be read.

    Attributes:
        path: relative to the archive.
        frame: uint8 ``[H, W, 3]`` BGR at model size; ``None`` where it could not be read.
        height: of the picture itself, in pixels.
        width: likewise.
        error: why it could not be read.
    """

    path: str
    frame: Frame | None = None
    height: int = 0
    width: int = 0
    error: str | None = None


def read_ahead(
    root: Path, paths: Iterable[str], size: ModelSize, threads: int
) -> Generator[ReadPicture]:
    """Read pictures in the order given; to be closed by who does not read all of them.

    Args:
        root: the archive.
        paths: relative to it.
        size: of the model.
        threads: that read, at least 1.
    """
    waiting: collections.deque[Future[ReadPicture]] = collections.deque()
    rest = iter(paths)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="patchline-read")
    try:
        for path in itertools.islice(rest, threads * _AHEAD):
            waiting.append(pool.submit(read_picture, root, path, size))
        while waiting:
            read = waiting.popleft().result()
            for path in itertools.islice(rest, 1):
                waiting.append(pool.submit(read_picture, root, path, size))
            yield read
    finally:
        pool.shutdown(cancel_futures=True)


def read_picture(root: Path, path: str, size: ModelSize) -> ReadPicture:
    """Read one picture as the camera, fit and evaluation do."""
    try:
        image = read_image(root / path)
    except ImageReadError as error:
        # By its name in the archive: the same sentence wherever the archive is mounted.
        return ReadPicture(path, error=str(error).replace(str(root / path), path))
    height, width = image.shape[:2]
    return ReadPicture(path, preprocess(image, size), height, width)
