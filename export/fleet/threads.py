"""CPU threads of a worker, which shares its node with others (issue 9)."""

from __future__ import annotations


def use_threads(count: int) -> None:
    """Let this process compute on so many CPU threads.

    ONNX Runtime takes PyTorch's number, see :mod:`patchline.export.onnx_session`.

    Args:
        count: 1 or more.
    """
    import cv2
    import torch

    torch.set_num_threads(count)
    cv2.setNumThreads(count)
