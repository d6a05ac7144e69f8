"""What PyTorch is told of float32 on CUDA."""

from __future__ import annotations

from typing import Any

import torch

FULL = {
    "matmul": "ieee",
    "conv": "ieee",
    "rnn": "ieee",
    "benchmark": False,
    "deterministic": True,
}
"""Full float32, and kernels that repeat themselves."""


def flags_now() -> dict[str, Any]:
    """The flags of the process; they are there without CUDA too."""
    cudnn = torch.backends.cudnn
    return {
        "matmul": torch.backends.cuda.matmul.fp32_precision,
        "conv": cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        "rnn": cudnn.rnn.fp32_precision,  # type: ignore[attr-defined]
        "benchmark": cudnn.benchmark,
        "deterministic": cudnn.deterministic,
    }
