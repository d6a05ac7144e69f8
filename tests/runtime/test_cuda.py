"""Opening a GPU, its errors in our words, and giving it back."""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
import types
from typing import Any

import numpy as np
import pytest

from patchline.runtime.engine.cuda import gpu as cuda
from patchline.runtime.engine.cuda.errors import cuda_errors, failure, no_room
from patchline.runtime.engine.cuda.gpu import open_gpu
from patchline.runtime.errors import DeviceLostError, EngineError, MissingExtraError

from . import fake_cuda
from .fake_cuda import Fault, World, install, make_driver


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(mood="lazy")
    install(monkeypatch, world)
    return world


def import_fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(name: str) -> types.ModuleType:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)


class TestOpen:
    def test_it_tells_what_it_is(self, world: World) -> None:
        gpu = open_gpu()
        assert (gpu.device.gpu, gpu.device.compute_capability) == ("Orin", "8.7")
        assert gpu.total_bytes == gpu.free_bytes == 1 << 30
        gpu.close()
        gpu.close()
        world.assert_clean()

    def test_the_context_stays_current_until_it_is_closed(self, world: World) -> None:
        gpu = open_gpu()
        assert len(world.contexts) == 1
        with gpu.current():
            assert len(world.contexts) == 2
        assert len(world.contexts) == 1
        gpu.close()
        assert not world.contexts

    def test_two_may_be_closed_in_any_order(self, world: World, caplog: Any) -> None:
        for order in (slice(None), slice(None, None, -1)):
            gpus = [open_gpu(), open_gpu()]
            for gpu in gpus:
                with gpu.current():
                    assert world.contexts[-1] is gpu._context
            gpus = gpus[order]
            gpus[0].close()
            assert gpus[1].free_bytes > 0
            gpus[1].close()
            world.assert_clean()
        assert not caplog.text

    @pytest.mark.parametrize(
        ("index", "n_gpus", "words"),
        [
            (3, 1, "GPU 3 does not exist: this machine has 1 GPU, numbered from 0"),
            (2, 2, "has 2 GPUs"),
            (-1, 2, "GPU -1 does not exist"),
            (0, 0, "has no GPU"),
        ],
    )
    def test_one_that_does_not_exist(
        self, monkeypatch: pytest.MonkeyPatch, index: int, n_gpus: int, words: str
    ) -> None:
        world = World()
        install(monkeypatch, world)
        monkeypatch.setitem(sys.modules, "pycuda.driver", make_driver(world, n_gpus))
        with pytest.raises(EngineError, match=words):
            open_gpu(index)
        world.assert_clean()

    @pytest.mark.parametrize("at", [1, 2, 3])
    def test_whatever_fails_while_it_opens(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        world = World(fault=Fault(at))
        install(monkeypatch, world)
        with pytest.raises(EngineError, match=r"CUDA does not start|GPU 0 does not open"):
            open_gpu()
        world.assert_clean()

    def test_no_gpu_is_no_lost_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install(monkeypatch, World(fault=Fault(1, "no CUDA-capable device is detected")))
        with pytest.raises(EngineError, match="nvidia-smi") as error:
            open_gpu()
        assert not isinstance(error.value, DeviceLostError)

    @pytest.mark.parametrize("name", ["pycuda", "pycuda.driver"])
    def test_no_pycuda_gives_both_install_lines(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        import_fails(monkeypatch, ModuleNotFoundError(f"No module named {name!r}", name=name))
        with pytest.raises(MissingExtraError) as error:
            open_gpu()
        assert "CUDA_ROOT=/usr/local/cuda pip install pycuda" in str(error.value)
        assert 'pip install "patchline[tensorrt]"' in str(error.value)

    @pytest.mark.parametrize(
        "failure",
        [
            ImportError("libcuda.so.1: cannot open shared object file"),
            ModuleNotFoundError("No module named 'pytools'", name="pytools"),
        ],
    )
    def test_one_that_does_not_load(
        self, monkeypatch: pytest.MonkeyPatch, failure: Exception
    ) -> None:
        import_fails(monkeypatch, failure)
        with pytest.raises(EngineError, match=r"pycuda does not load: (libcuda|No module)"):
            open_gpu()


class TestErrors:
    @pytest.mark.parametrize(
        "reason",
        [
            "cuEventSynchronize failed: an illegal memory access was encountered",
            "cuStreamSynchronize failed: unspecified launch failure",
            "cuMemcpyDtoHAsync failed: uncorrectable ECC error encountered",
            "cuCtxPushCurrent failed: context is destroyed",
            "cuLaunchKernel failed: the launch timed out and was terminated",
            "CUDA_ERROR_LAUNCH_FAILED",
            "CUDA_ERROR_ILLEGAL_ADDRESS",
            "cuInit failed: no CUDA-capable device is detected",
            "Cuda Runtime (misaligned address)",
            "CUDA-capable device(s) is/are busy or unavailable",
        ],
    )
    def test_these_say_that_the_gpu_is_lost(self, reason: str) -> None:
        error = failure("the frame", reason)
        assert isinstance(error, DeviceLostError) and reason in str(error)

    @pytest.mark.parametrize(
        "reason",
        [
            "cuMemAlloc failed: out of memory",
            "cuMemcpyHtoDAsync failed: invalid argument",
            "cuLaunchKernel failed: too many resources requested for launch",
            "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
            "cuStreamCreate failed: invalid resource handle",
        ],
    )
    def test_these_do_not(self, reason: str) -> None:
        assert type(failure("the frame", reason)) is EngineError

    def test_what_is_not_cudas_goes_through(self) -> None:
        with pytest.raises(ZeroDivisionError), cuda_errors(fake_cuda):
            raise ZeroDivisionError

    def test_the_room_that_is_not_there(self) -> None:
        text = str(no_room(3 << 30, "a bank", 1 << 30, 8 << 30))
        assert "a bank: 3,072.0 MiB were asked, 1,024.0 MiB of 8,192.0 MiB are free" in text
        assert "--batch" in text and "--workspace" in text


class TestMemory:
    def test_too_much_on_the_gpu(self, world: World) -> None:
        gpu = open_gpu()
        with gpu.current(), pytest.raises(EngineError, match=r"no room for maps: 2,048\.0 MiB"):
            gpu.allocate(2 << 30, "maps")
        gpu.close()

    def test_too_much_pinned(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu = open_gpu()
        world.fault = Fault(len(world.calls) + 2, "out of memory")
        with gpu.current(), pytest.raises(EngineError, match="12 bytes of pinned memory"):
            gpu.pinned((3,), np.float32)
        gpu.close()
        world.assert_clean()

    def test_pinned_memory_is_zeroed_and_freed_once(self, world: World) -> None:
        gpu = open_gpu()
        pinned = gpu.pinned((2, 3), np.uint8)
        assert not pinned.array.any() and pinned.array.shape == (2, 3)
        buffer = gpu.allocate(5, "a test")
        for thing in (pinned, buffer, pinned, buffer):
            thing.release()
        gpu.close()
        world.assert_clean()


class TestLoss:
    def reset(self, monkeypatch: pytest.MonkeyPatch, code: Any) -> list[int]:
        asked: list[int] = []

        def reset(index: int) -> Any:
            asked.append(index)
            return code

        library = types.SimpleNamespace(cuDevicePrimaryCtxReset_v2=reset)
        monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
        return asked

    def lose(self) -> cuda.Gpu:
        gpu = open_gpu()
        with pytest.raises(DeviceLostError), gpu.current():
            raise DeviceLostError("gone")
        return gpu

    def test_a_lost_context_is_reset_when_it_is_closed(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked = self.reset(monkeypatch, 0)
        self.lose().close()
        assert asked == [0] and not caplog.text
        open_gpu().close()
        assert asked == [0]
        world.assert_clean()

    def test_a_reset_that_fails_is_said(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.reset(monkeypatch, 719)
        with caplog.at_level(logging.WARNING):
            self.lose().close()
        assert "could not be reset: 719" in caplog.text

    def test_no_library_to_reset_it_with_is_said(
        self, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def load(name: str) -> Any:
            raise OSError("no libcuda.so.1")

        monkeypatch.setattr(ctypes, "CDLL", load)
        self.lose().close()
        assert "no libcuda" in caplog.text

    def test_a_context_that_is_not_given_back_is_said_and_closed(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.fails_on_release = "cuda context"
        gpu = open_gpu()
        gpu.close()
        assert "was not given back" in caplog.text and not world.contexts
        with pytest.raises(EngineError, match="the GPU is closed"):
            _ = gpu.free_bytes
