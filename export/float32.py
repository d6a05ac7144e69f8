"""Float32 that is float32 on CUDA, and kernels that repeat themselves (DESIGN section 2: parity).

PyTorch lets cuDNN round the factors of float32 convolutions to ten bits there (TF32). Features,
threshold and statistics would then come from another arithmetic than the exported model's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_FULL = "ieee"


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """No TF32, and only deterministic cuDNN kernels, while the context is open.

    These are settings of the whole process, put back at the end as they were. Half precision that
    is asked for (autocast) stays half precision. On the CPU nothing changes. It decorates a
    function as well.
    """
    # Not the older `allow_tf32`: reading it is an error where anybody has set `fp32_precision`.
    cudnn: Any = torch.backends.cudnn
    parts = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    before = [part.fp32_precision for part in parts]
    kernels = (cudnn.benchmark, cudnn.deterministic)
    try:
        for part in parts:
            part.fp32_precision = _FULL
        cudnn.benchmark, cudnn.deterministic = False, True
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = kernels
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision
