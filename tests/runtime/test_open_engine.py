"""Which engine a file name opens, and what is known to be wrong before minutes of building."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.cli.camera_engine import EngineOptions, open_camera_engine
from patchline.runtime.cli.command import FlavourName
from patchline.runtime.contract import manifest_path
from patchline.runtime.engine import compat, open_engine, tensorrt
from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.cuda import gpu as cuda
from patchline.runtime.engine.options import TensorRTOptions
from patchline.runtime.engine.plans import ready_plan
from patchline.runtime.engine.plans.record import Device
from patchline.runtime.errors import (
    BuildError,
    ConfigurationError,
    DeviceLostError,
    EngineError,
    ManifestError,
    ModelError,
)
from patchline.runtime.preprocess import Frame
from patchline.runtime.progress import SilentSteps

from .fakes import FakeEngine, gray
from .tiny_model import SIZE, write_tiny_bank, write_tiny_graph

ORIN = Device(gpu="Orin", compute_capability="8.7")
FLAVOUR = Flavour("tensorrt", None, "10.3.0")


class Device0:
    """Everything between ``open_engine`` and the GPU, and what it was asked for."""

    device = ORIN

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.order: list[str] = []
        self.ready_error: Exception | None = None
        self.make: Callable[..., Any] = lambda *arguments, **options: FakeEngine()

    def load_flavour(self, name: str | None) -> Flavour:
        self.order.append("flavour")
        self.asked["flavour"] = name
        return FLAVOUR

    def open_gpu(self, index: int) -> Device0:
        self.order.append("gpu")
        self.asked["device"] = index
        return self

    def ready(self, *arguments: Any) -> None:
        self.order.append("ready")
        self.asked["ready"] = arguments
        if self.ready_error is not None:
            raise self.ready_error
        arguments[-1]("it is built now")

    def engine(self, *arguments: Any, **options: Any) -> Any:
        self.order.append("engine")
        self.asked["engine"] = (arguments, options)
        return self.make(*arguments, **options)

    def close(self) -> None:
        self.order.append("close")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device0:
    found = Device0()
    monkeypatch.setattr(compat, "load_flavour", found.load_flavour)
    monkeypatch.setattr(cuda, "open_gpu", found.open_gpu)
    monkeypatch.setattr(ready_plan, "ready_plan", found.ready)
    monkeypatch.setattr(tensorrt, "TensorRTEngine", found.engine)
    return found


@pytest.fixture
def plan(tiny_model: Path) -> Path:
    return tiny_model.with_suffix(".trt")


class TestPlan:
    def test_a_plan_is_made_ready_and_opened(
        self, plan: Path, gpu: Device0, caplog: pytest.LogCaptureFixture
    ) -> None:
        options = TensorRTOptions(device=2, flavour="tensorrt", cuda_graph=False)
        steps = SilentSteps()
        assert isinstance(open_engine(plan, tensorrt=options, steps=steps), FakeEngine)
        assert gpu.order == ["flavour", "gpu", "ready", "engine"]
        assert (gpu.asked["flavour"], gpu.asked["device"]) == ("tensorrt", 2)
        assert gpu.asked["ready"][:-1] == (plan, FLAVOUR, ORIN, options, steps)
        assert gpu.asked["engine"] == (
            (plan,),
            {"flavour": FLAVOUR, "gpu": gpu, "bank": None, "cuda_graph": False},
        )
        assert caplog.record_tuples == [
            ("patchline.runtime.engine.open", logging.WARNING, "it is built now")
        ]

    def test_a_bank_goes_to_the_engine(self, tmp_path: Path, gpu: Device0) -> None:
        plan = write_tiny_graph(tmp_path).with_suffix(".trt")
        bank = write_tiny_bank(tmp_path / "cap.bank")
        open_engine(plan, bank=bank)
        assert gpu.asked["engine"][1]["bank"].path == bank

    def test_the_gpu_is_given_back_when_no_plan_is_had(self, plan: Path, gpu: Device0) -> None:
        gpu.ready_error = BuildError("no memory")
        with pytest.raises(BuildError, match="no memory"):
            open_engine(plan)
        assert gpu.order == ["flavour", "gpu", "ready", "close"]

    def test_the_gpu_is_given_back_when_the_engine_does_not_open(
        self, plan: Path, gpu: Device0
    ) -> None:
        def refuse(*arguments: Any, **options: Any) -> None:
            raise EngineError("no room")

        gpu.make = refuse
        with pytest.raises(EngineError, match="no room"):
            open_engine(plan)
        assert gpu.order[-1] == "close"

    def test_a_bank_that_is_missing_or_unwanted_is_known_before_a_build(
        self, plan: Path, tmp_path: Path, gpu: Device0
    ) -> None:
        graph = write_tiny_graph(tmp_path).with_suffix(".trt")
        with pytest.raises(ConfigurationError, match="holds no memory bank"):
            open_engine(graph)
        with pytest.raises(ConfigurationError, match="holds its own memory bank"):
            open_engine(plan, bank=write_tiny_bank(tmp_path / "cap.bank"))
        with pytest.raises(ModelError, match=r"gone\.bank does not exist"):
            open_engine(graph, bank=tmp_path / "gone.bank")
        write_tiny_graph(tmp_path, "other", neighbors=2)
        with pytest.raises(ManifestError, match="neighbors: 1, not 2"):
            open_engine(tmp_path / "other.trt", bank=tmp_path / "cap.bank")
        manifest_path(plan).unlink()
        with pytest.raises(ManifestError, match="is missing"):
            open_engine(plan)
        assert gpu.order == []


class TestOnnx:
    def test_a_graph_is_opened_with_its_bank(self, tmp_path: Path) -> None:
        bank = write_tiny_bank(tmp_path / "cap.bank")
        with open_engine(write_tiny_graph(tmp_path), bank=bank) as engine:
            assert engine.manifest.class_name == "cap"

    @pytest.mark.parametrize("name", ["lamp.engine", "lamp"])
    def test_another_kind_of_file(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigurationError, match=r"ending in \.onnx .* or \.trt"):
            open_engine(tmp_path / name)


def open_for_camera(path: Path, **options: Any) -> Any:
    return open_camera_engine(EngineOptions(path, **options))


class TestCamera:
    def test_its_options_reach_the_plan(self, plan: Path, gpu: Device0) -> None:
        options = {"device": 1, "flavour": FlavourName.TENSORRT_RTX, "no_build": True}
        open_for_camera(plan, no_cuda_graph=True, **options)
        expected = TensorRTOptions(device=1, flavour="tensorrt-rtx", build=False, cuda_graph=False)
        assert gpu.asked["ready"][3] == expected

    def test_a_lost_gpu_is_a_warning_and_the_frame_is_judged_again(
        self, plan: Path, gpu: Device0, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Losing(FakeEngine):
            def infer(self, frames: Frame) -> Any:
                if gpu.order.count("engine") == 1:
                    raise DeviceLostError("the GPU fell off the bus")
                return super().infer(frames)

        gpu.make = lambda *arguments, **options: Losing()
        engine = open_for_camera(plan)
        found = engine.infer(gray(90, SIZE, SIZE)[None])
        assert found.image_score.tolist() == [90.0]
        assert gpu.order.count("engine") == 2
        warning = "warning: the GPU fell off the bus. The engine is opened again"
        assert warning in capsys.readouterr().err
