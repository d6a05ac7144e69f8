"""ONNX Runtime during an export: as many threads as PyTorch has here (issue 9).

So that several classes beside each other on one machine share it as they were told to, and one
class by itself has the whole of it.
"""

from __future__ import annotations

from typing import Any

import torch

from patchline.runtime.engine import session_options as of_runtime


def session_options(onnxruntime: Any) -> Any:
    """Options of a session as the line has them, with the threads of the export.

    Args:
        onnxruntime: the module.
    """
    options = of_runtime.session_options(onnxruntime)
    options.intra_op_num_threads = threads_of_export()
    return options


def threads_of_export() -> int:
    """CPU threads of an export in this process, at least 1."""
    return torch.get_num_threads()
