"""Good pictures -> patch embeddings in a row store and their projections, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from patchline.export.backbone import PatchEmbedder
from patchline.export.coreset import PROJECTED_DIMENSION, random_projection
from patchline.export.row_store import RowStore
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import DataError, ImageReadError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, resize
from patchline.runtime.progress import Advance

OnUnreadable = Callable[[ImageReadError], None]


@dataclass
class TrainingFeatures:
    """Patch embeddings of the good pictures that could be read.

    Attributes:
        rows: float32 ``[I + N * P, D]``: inherited rows first, then image by image.
        projections: float32 ``[I + N * P, <= 128]`` on the device of the fit; no rows at all where
            they are made again when they are needed (a coreset in shards).
        paths: the N pictures that were read.
        patches: P, patches per image.
        inherited: I, rows of the bank that is extended; 0 where a model is fitted anew.
        matrix: of the projection, on its device; ``None`` where rows are compared as they are.
    """

    rows: RowStore
    projections: Tensor
    paths: tuple[Path, ...]
    patches: int
    inherited: int = 0
    matrix: Tensor | None = None

    def projected(self, start: int, stop: int) -> Tensor:
        """Projections of rows ``start`` to ``stop`` (exclusive), ``[n, <= 128]``."""
        if len(self.projections):
            return self.projections[start:stop]
        projected = self.projections.new_empty(max(0, stop - start), self.projections.shape[1])
        for first in range(start, stop, self.patches):  # a picture at a time: rows are wide
            last = min(first + self.patches, stop)
            part = self.rows.read(first, last).to(projected.device)
            projected[first - start : last - start] = _project(part, self.matrix)
        return projected

    def images(self, first: int, last: int) -> Tensor:
        """Patch embeddings of images ``first`` to ``last`` (exclusive), ``[n * P, D]``."""
        start, stop = (self.inherited + image * self.patches for image in (first, last))
        return self.rows.read(start, stop)

    def candidates(self, images: npt.NDArray[np.bool_]) -> Tensor:
        """Rows that a bank may be chosen from, bool ``[I + N * P]``: the inherited ones, and
        those of the images marked in ``[N]``."""
        of_images = torch.from_numpy(images).repeat_interleave(self.patches)
        return torch.cat([torch.ones(self.inherited, dtype=torch.bool), of_images])


@torch.inference_mode()
def extract_features(
    paths: tuple[Path, ...],
    embedder: PatchEmbedder,
    *,
    batch_size: int,
    seed: int,
    spill: Path | None = None,
    on_unreadable: OnUnreadable | None = None,
    advance: Advance = lambda done: None,
    inherited: Tensor | None = None,
    holds_projections: bool = True,
) -> TrainingFeatures:
    """Embed pictures in the order given.

    Args:
        paths: pictures of any size and mode.
        embedder: on the device to compute on.
        batch_size: pictures embedded at once.
        seed: of the random projection.
        spill: folder for the embeddings, ``None`` for memory.
        on_unreadable: told of each picture that cannot be read, which is then left out;
            ``None`` makes the first one an error.
        advance: told how many pictures are done.
        inherited: float32 ``[I, D]``, a bank to extend; its rows come first.
        holds_projections: whether those of all rows stay in memory.

    Raises:
        ImageReadError: a picture cannot be read, and ``on_unreadable`` is ``None``.
        DataError: none of them can, or the backbone gives NaN or infinity for one; it is named.
    """
    patches = embedder.grid[0] * embedder.grid[1]
    device = next(embedder.network.parameters()).device
    matrix = random_projection(embedder.dimension, seed)
    width = min(PROJECTED_DIMENSION, embedder.dimension)
    capacity = len(paths) * patches + (0 if inherited is None else len(inherited))
    rows = RowStore(capacity, embedder.dimension, spill)
    projections = torch.empty(capacity if holds_projections else 0, width, device=device)
    matrix = matrix.to(device) if matrix is not None else None

    def append(embedded: Tensor) -> None:
        start = len(rows)
        if holds_projections:
            projections[start : start + len(embedded)] = _project(embedded, matrix)
        rows.append(embedded)

    kept: list[Path] = []
    done = 0
    try:
        if inherited is not None:
            append(inherited.to(device))
        for read, frames in _batches(paths, embedder.size, batch_size, on_unreadable):
            if frames is not None:
                embedded = embedder(torch.from_numpy(frames).to(device))
                _check_finite(embedded, read)
                append(embedded.flatten(0, 2))
                kept += read
            done = min(done + batch_size, len(paths))
            advance(done)
        if not kept:
            raise DataError(f"none of the {len(paths)} pictures in {paths[0].parent} can be read")
    except BaseException:
        rows.close()
        raise
    count = 0 if inherited is None else len(inherited)
    held = projections[: len(rows)]
    return TrainingFeatures(rows, held, tuple(kept), patches, count, matrix)


def read_frames(paths: tuple[Path, ...], size: ModelSize) -> Frame:
    """Read pictures as model input, uint8 ``[N, H, W, 3]``.

    Raises:
        ImageReadError: one cannot be read.
    """
    return np.stack([resize(read_image(path), size) for path in paths])


def _project(rows: Tensor, matrix: Tensor | None) -> Tensor:
    return rows if matrix is None else rows @ matrix


def _check_finite(embedded: Tensor, paths: list[Path]) -> None:
    finite = embedded.isfinite().flatten(1).all(1).tolist()
    if not all(finite):
        raise DataError(
            f"the backbone gives NaN or infinite features for {paths[finite.index(False)]}. Its "
            "weights are damaged, or do not fit it: give others with --weights"
        )


def _batches(
    paths: tuple[Path, ...],
    size: ModelSize,
    batch_size: int,
    on_unreadable: OnUnreadable | None,
) -> Iterator[tuple[list[Path], Frame | None]]:
    """Per batch the pictures that could be read, and their frames (``None`` where none could)."""
    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        frames = {path: _read(path, size, on_unreadable) for path in batch}
        read = {path: frame for path, frame in frames.items() if frame is not None}
        yield list(read), np.stack(list(read.values())) if read else None


def _read(path: Path, size: ModelSize, on_unreadable: OnUnreadable | None) -> Frame | None:
    try:
        return resize(read_image(path), size)
    except ImageReadError as error:
        if on_unreadable is None:
            raise ImageReadError(
                f"{error}. Remove it, or leave unreadable pictures out with --skip-unreadable"
            ) from error
        on_unreadable(error)
        return None
