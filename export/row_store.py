"""Rows of float32 that stay in memory or lie in a file, so that a fit keeps to its budget."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

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
        self._capacity = capacity
        self._spill = spill
        self._values = np.empty((0 if spill else capacity, dimension), np.float32)
        self._file: io.FileIO | None = None
        self._rows = 0
        self._closed = False
        if spill is not None:
            # Unbuffered: a full disk shows when rows are appended, and not when they are read.
            with write_errors(spill):
                self._file = tempfile.TemporaryFile(  # noqa: SIM115 (outlives this call)
                    "w+b", buffering=0, dir=spill
                )

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
            ValueError: rows of another shape or type, more than there is room for, or closed.
        """
        self._check_open()
        block = rows.detach().cpu().contiguous().numpy()
        if block.dtype != np.float32 or block.shape[1:] != (self.dimension,):
            raise ValueError(f"expected float32 rows [n, {self.dimension}], got {block.shape}")
        end = self._rows + len(block)
        if end > self._capacity:
            raise ValueError(f"{end} rows do not fit: there is room for {self._capacity}")
        if self._file is None:
            self._values[self._rows : end] = block
        else:
            self._write(self._file, block.tobytes())
        self._rows = end

    def read(self, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` (exclusive) as float32 ``[n, dimension]``."""
        self._check_open()
        stop = min(stop, self._rows)
        if self._file is None:
            return torch.from_numpy(self._values[start:stop])
        content = bytearray(max(0, stop - start) * self._row_bytes)
        self._file.seek(start * self._row_bytes)
        left = memoryview(content)
        while left and (count := self._file.readinto(left)):
            left = left[count:]
        return torch.from_numpy(np.frombuffer(content, np.float32).reshape(-1, self.dimension))

    def gather(self, indices: Tensor) -> Tensor:
        """Rows at int64 ``[n]``, in that order, as float32 ``[n, dimension]``."""
        self._check_open()
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < self._rows:
            raise IndexError(f"an index is not one of the {self._rows} rows")
        if self._file is None:
            return torch.from_numpy(self._values[indices.numpy()])
        picked = torch.empty(len(indices), self.dimension)
        for at, index in sorted(enumerate(indices.tolist()), key=lambda pair: pair[1]):
            picked[at] = self.read(index, index + 1)[0]
        return picked

    def close(self) -> None:
        """Free the memory or the file. A second call does nothing."""
        self._closed = True
        self._values = np.empty((0, self.dimension), np.float32)
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _row_bytes(self) -> int:
        return self.dimension * _FLOAT_BYTES

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the row store is closed")

    def _write(self, file: io.FileIO, content: bytes) -> None:
        with write_errors(self._spill or Path()):
            file.seek(self._rows * self._row_bytes)
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
