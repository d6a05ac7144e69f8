"""Full float32 on CUDA: what is switched off while it is computed, and put back after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from patchline.export import fit as memory_bank
from patchline.export.config import FitSettings
from patchline.export.datasets import GoodPictures
from patchline.export.float32 import full_float32
from patchline.runtime.progress import SilentSteps

from .drawn import refuse
from .precision_flags import FULL, flags_now

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")


@pytest.fixture
def before() -> Iterator[dict[str, Any]]:
    """The flags of the process as PyTorch has them from the start, put back after the test."""
    found = flags_now()
    assert found != FULL  # else nothing here could fail
    yield found
    assert flags_now() == found


def test_tf32_is_off_inside_and_as_before_after(before: dict[str, Any]) -> None:
    with full_float32():
        assert flags_now() == FULL
    assert flags_now() == before


def test_they_are_put_back_after_an_error_and_an_interrupt(before: dict[str, Any]) -> None:
    for error in (RuntimeError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), full_float32():
            raise error
        assert flags_now() == before


def test_what_somebody_set_is_put_back() -> None:
    """The state in which PyTorch's older ``allow_tf32`` cannot even be read."""
    cudnn = torch.backends.cudnn
    conv, kernels = cudnn.conv, (cudnn.benchmark, cudnn.deterministic)  # type: ignore[attr-defined]
    was = conv.fp32_precision
    try:
        conv.fp32_precision, cudnn.benchmark, cudnn.deterministic = "ieee", True, False
        with pytest.raises(RuntimeError, match="allow_tf32"):
            bool(cudnn.allow_tf32)
        found = flags_now()
        with full_float32():
            assert flags_now() == FULL
        assert flags_now() == found and cudnn.benchmark
    finally:
        conv.fp32_precision = was
        cudnn.benchmark, cudnn.deterministic = kernels


def test_one_inside_another(before: dict[str, Any]) -> None:
    with full_float32():
        with full_float32():
            assert flags_now() == FULL
        assert flags_now() == FULL
    assert flags_now() == before


def test_a_memory_bank_is_fitted_in_it(
    before: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    seen: list[dict[str, Any]] = []

    def record(name: str) -> torch.device:
        seen.append(flags_now())
        raise KeyboardInterrupt

    monkeypatch.setattr(memory_bank, "choose_device", record)
    with pytest.raises(KeyboardInterrupt):
        memory_bank.fit(GoodPictures("lamp", tmp_path, ()), FitSettings(), SilentSteps(), refuse)
    assert seen == [FULL]


@needs_cuda
def test_convolutions_on_cuda_are_those_of_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(2, 64, 32, 32, generator=generator)
    weights = torch.randn(64, 64, 3, 3, generator=generator)
    exact = torch.conv2d(frames.double(), weights.double())
    with full_float32():
        found = torch.conv2d(frames.cuda(), weights.cuda())
    assert float((found.cpu() - exact).abs().max()) < 2e-3  # sums of 576 products; TF32: 0.05
