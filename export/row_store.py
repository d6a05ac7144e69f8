"""Rows of float32 that stay in memory or lie in a file, so that a fit keeps to its budget."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from patchline.runtime.files import write_errors

_FLOAT_BYTES = 4


class RowStore:
    """Up to ``capacity`` rows of ``dimension`` float32 values, appended first and then read.

    On disk it is a nameless temporary file that the system frees whatever happens to the
    process. Plain reads rather than a memory map: mapped pages would count as this process's
    memory, and the budget is about that.

    Args:
        capacity: rows there is room for.
        dimension: width of a row.
        spill: folder for the file; ``None`` keeps the rows in memory.
    """

    def __init__(self, capacity: int, dimension: int, spill: Path | None = None) -> None:
        self.dimension = dimension
        self._spill = spill
        self._values = np.empty((0 if spill else capacity, dimension), np.float32)
        self._file: BinaryIO | None = None
        self._rows = 0
        if spill is not None:
            with write_errors(spill):
                self._file = tempfile.TemporaryFile(dir=spill)  # noqa: SIM115 (outlives this call)

    def __len__(self) -> int:
        return self._rows

    @property
    def on_disk(self) -> bool:
        """Whether the rows lie in a file."""
        return self._spill is not None

    def append(self, rows: Tensor) -> None:
        """Add float32 rows ``[n, dimension]``.

        Raises:
            WriteError: the disk is full.
        """
        block = rows.detach().cpu().contiguous().numpy()
        if self._spill is None:
            self._values[self._rows : self._rows + len(block)] = block
        else:
            with write_errors(self._spill):
                self._open_file().write(block.tobytes())
        self._rows += len(block)

    def read(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` (exclusive) as float32 ``[n, dimension]``."""
        if self._spill is None:
            return torch.from_numpy(self._values[start : min(stop, self._rows)])
        file = self._open_file()
        file.seek(start * self.dimension * _FLOAT_BYTES)
        values = np.frombuffer(
            bytearray(file.read((stop - start) * self.dimension * _FLOAT_BYTES)), np.float32
        )
        return torch.from_numpy(values.reshape(-1, self.dimension))

    def gather(self, indices: Tensor) -> Tensor:
        """Rows at int64 ``[n]``, in that order, as float32 ``[n, dimension]``."""
        if self._spill is None:
            return torch.from_numpy(self._values[indices.numpy()])
        picked = torch.empty(len(indices), self.dimension)
        for at, index in sorted(enumerate(indices.tolist()), key=lambda pair: pair[1]):
            picked[at] = self.read(index, index + 1)[0]
        return picked

    def close(self) -> None:
        """Free the memory or the file. A second call does nothing."""
        self._values = np.empty((0, self.dimension), np.float32)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the row store is closed")
        return self._file
