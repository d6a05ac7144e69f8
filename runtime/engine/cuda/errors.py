"""pycuda's and TensorRT's errors in our words; which of them say that the GPU is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from patchline.runtime.errors import DeviceLostError, EngineError

_MIB = 1 << 20

_LOST = (
    "launch fail",
    "launch timed out",
    "launch timeout",
    "illegal memory access",
    "illegal address",
    "illegal instruction",
    "misaligned address",
    "invalid program counter",
    "invalid pc",
    "address space",
    "hardware stack error",
    "ecc error",
    "ecc uncorrectable",
    "nvlink error",
    "nvlink uncorrectable",
    "device-side assert",
    "context is destroyed",
    "invalid device context",
    "invalid context",
    "device unavailable",
    "busy or unavailable",
    "no cuda-capable device",
    "driver shutting down",
    "deinitialized",
    "unknown error",
    "error unknown",
)
"""After these nothing works in the context any more. CUDA's texts and the names of its codes."""


def failure(what: str, reason: str) -> EngineError:
    """The error for a reason that CUDA or TensorRT gave; ``DeviceLostError`` where it says so."""
    plain = reason.lower().replace("_", " ")
    if any(words in plain for words in _LOST):
        return DeviceLostError(
            f"the GPU is lost: {what}: {reason}. Open the engine again; if that fails too, start "
            "the program again, and look into the kernel's log (dmesg, Xid)"
        )
    return EngineError(f"{what}: {reason}")


def no_room(asked_bytes: int, what: str, free_bytes: int, total_bytes: int) -> EngineError:
    """The error for GPU memory that is not there."""
    return EngineError(
        f"the GPU has no room for {what}: {mib(asked_bytes)} were asked, {mib(free_bytes)} of "
        f"{mib(total_bytes)} are free. Build a plan of a smaller largest batch (build-engine "
        "--batch 1:1:1) or --workspace, and close what else uses the GPU"
    )


def mib(n_bytes: int) -> str:
    """``12.3 MiB``."""
    return f"{n_bytes / _MIB:,.1f} MiB"


@contextlib.contextmanager
def cuda_errors(driver: Any, what: str = "CUDA failed") -> Iterator[None]:
    """Let pycuda's exceptions out as ours.

    Args:
        driver: pycuda's driver module.
        what: was being done, for the message.

    Raises:
        DeviceLostError: the GPU is lost.
        EngineError: anything else that pycuda raised.
    """
    try:
        yield
    except driver.Error as error:
        raise failure(what, str(error)) from error
