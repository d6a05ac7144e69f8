"""Too little memory for a training, said in one sentence that names the settings that decide."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import TrainingError

LEAST_BATCH = 2
"""Batch norm learns nothing from a single picture."""

# Of PyTorch's allocators, of cuBLAS, and of cuDNN, which finds no kernel that has room.
_MEMORY_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",
    "unable to find an engine",
)


@contextlib.contextmanager
def memory_errors(
    batch_size: int | None, size: ModelSize, last_good: Callable[[], str]
) -> Iterator[None]:
    """Say which settings decide, where the memory does not suffice.

    Args:
        batch_size: of the training; ``None`` where pictures are judged one by one.
        size: of the model's frames.
        last_good: gives a sentence about the checkpoint that is left.

    Raises:
        TrainingError: in place of PyTorch's and Python's errors about memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not _is_about_memory(error):
            raise
        reason = (str(error).strip().splitlines() or ["out of memory"])[0]
        work = "a picture" if batch_size is None else f"train.batch_size {batch_size}"
        raise TrainingError(
            f"the memory does not suffice for {work} at image_size {size.height}x{size.width} "
            f"({reason}). {_advice(batch_size)}, and start anew without --resume: a checkpoint "
            f"belongs to its batch size and image size. {last_good()}"
        ) from error


def _advice(batch_size: int | None) -> str:
    if batch_size is None or batch_size <= LEAST_BATCH:
        return "Give a smaller --image-size"
    smaller = max(LEAST_BATCH, batch_size // 2)
    return f"Lower one of them, such as --set train.batch_size={smaller}"


def _is_about_memory(error: RuntimeError) -> bool:
    return any(sign in str(error).lower() for sign in _MEMORY_SIGNS)
