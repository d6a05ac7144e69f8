"""Threads of a worker: PyTorch, OpenCV and ONNX Runtime all heed what a class was given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import onnxruntime
import pytest
import torch

from patchline.export import parity
from patchline.export.fleet.threads import use_threads
from patchline.export.onnx_session import session_options, threads_of_export


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.mark.parametrize("count", [1, 3])
def test_all_libraries_get_as_many(count: int) -> None:
    use_threads(count)
    assert torch.get_num_threads() == threads_of_export() == count
    assert cv2.getNumThreads() == count
    assert session_options(onnxruntime).intra_op_num_threads == count


def test_the_check_of_an_exported_file(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_threads(3)
    opened: list[Any] = []
    whole = onnxruntime.InferenceSession

    def note(path: str, options: Any, **given: Any) -> Any:
        opened.append(options.intra_op_num_threads)
        return whole(path, options, **given)

    monkeypatch.setattr(onnxruntime, "InferenceSession", note)
    parity._open(exported)
    assert opened == [3]
