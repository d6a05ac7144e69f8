"""One contract for every engine, and what ONNX Runtime's refuses."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchline.runtime import contract
from patchline.runtime.contract import load_manifest, manifest_path
from patchline.runtime.engine import Engine, open_engine
from patchline.runtime.engine import onnxruntime as module
from patchline.runtime.engine.cuda.gpu import open_gpu
from patchline.runtime.engine.onnxruntime import OnnxRuntimeEngine
from patchline.runtime.engine.recovery import RecoveringEngine
from patchline.runtime.engine.tensorrt import TensorRTEngine
from patchline.runtime.errors import (
    ConfigurationError,
    EngineError,
    FrameError,
    ManifestError,
    MissingExtraError,
    ModelError,
)

from .fake_cuda import World, install
from .fake_tensorrt import make_flavour, write_plan
from .fakes import FakeEngine
from .tiny_model import (
    SIZE,
    make_manifest,
    tiny_model_bytes,
    write_manifest,
    write_tiny_model,
)


def open_plan(path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A plan of the model on a fake GPU."""
    world = World()
    install(monkeypatch, world)
    return TensorRTEngine(write_plan(path), flavour=make_flavour(world), gpu=open_gpu())


ENGINES: dict[str, Callable[[Path, pytest.MonkeyPatch], Engine]] = {
    "fake": lambda path, _: FakeEngine(load_manifest(manifest_path(path))),
    "onnxruntime": lambda path, _: open_engine(path),
    "tensorrt": open_plan,
    "recovering": lambda path, patch: RecoveringEngine(lambda: open_plan(path, patch)),
}


@pytest.fixture(params=ENGINES)
def engine(
    request: pytest.FixtureRequest, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    with ENGINES[request.param](tiny_model, monkeypatch) as opened:
        yield opened


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


class TestEveryEngine:
    def test_it_tells_its_manifest_and_what_runs_it(self, engine: Engine) -> None:
        assert engine.manifest.class_name == "lamp"
        assert engine.description

    @pytest.mark.parametrize("count", [1, 2, 7])
    def test_the_outputs_have_the_promised_shapes_and_types(
        self, engine: Engine, count: int
    ) -> None:
        found = engine.infer(frames(count))
        assert found.image_score.shape == (count,)
        assert found.anomaly_map.shape == found.influence_map.shape == (count, SIZE, SIZE)
        for array in (found.image_score, found.anomaly_map, found.influence_map):
            assert array.dtype == np.float32

    def test_it_computes_what_the_model_says(self, engine: Engine) -> None:
        found = engine.infer(frames(3))
        expected = frames(3).mean(axis=3)
        np.testing.assert_allclose(found.anomaly_map, expected, rtol=1e-6)
        np.testing.assert_allclose(found.image_score, expected.max(axis=(1, 2)), rtol=1e-6)
        np.testing.assert_allclose(found.influence_map, expected / 2, rtol=1e-6)

    def test_many_at_once_equal_one_by_one(self, engine: Engine) -> None:
        together = engine.infer(frames(5))
        for index in range(5):
            alone = engine.infer(frames(5)[index : index + 1])
            np.testing.assert_array_equal(alone.image_score[0], together.image_score[index])
            np.testing.assert_array_equal(alone.anomaly_map[0], together.anomaly_map[index])

    def test_a_view_is_judged_like_its_copy(self, engine: Engine) -> None:
        view = frames(4)[::-2, :, ::-1]
        found, expected = engine.infer(view), engine.infer(view.copy())
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)

    def test_a_prediction_is_not_changed_by_the_next_one(self, engine: Engine) -> None:
        first = engine.infer(frames(1))
        before = first.anomaly_map.copy()
        engine.infer(255 - frames(1))
        np.testing.assert_array_equal(first.anomaly_map, before)

    @pytest.mark.parametrize(
        "wrong",
        [
            np.zeros((1, SIZE, SIZE, 3), np.float32),
            np.zeros((SIZE, SIZE, 3), np.uint8),
            np.zeros((1, SIZE, SIZE + 1, 3), np.uint8),
            np.zeros((1, 3, SIZE, SIZE), np.uint8),
            np.zeros((0, SIZE, SIZE, 3), np.uint8),
        ],
        ids=["float", "no batch", "size", "channels first", "empty"],
    )
    def test_frames_that_do_not_fit_are_refused(self, engine: Engine, wrong: Any) -> None:
        with pytest.raises(FrameError, match="expected"):
            engine.infer(wrong)

    def test_a_closed_engine_says_so_and_can_be_closed_again(self, engine: Engine) -> None:
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="the engine is closed"):
            engine.infer(frames(1))


# ONNX Runtime


def edit(model: Path, **changes: Any) -> None:
    path = manifest_path(model)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_description_names_version_and_provider(tiny_model: Path) -> None:
    with OnnxRuntimeEngine(tiny_model, provider="cpu", threads=1) as engine:
        assert engine.description.startswith("ONNX Runtime ")
        assert engine.description.endswith(", CPUExecutionProvider")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lamp\.onnx does not exist"):
        open_engine(tmp_path / "lamp.onnx")


def test_a_file_that_no_engine_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no engine runs 'lamp\.pt'"):
        open_engine(tmp_path / "lamp.pt")


def test_a_missing_manifest_is_named(tiny_model: Path) -> None:
    manifest_path(tiny_model).unlink()
    with pytest.raises(ManifestError, match=r"lamp\.json is missing"):
        open_engine(tiny_model)


def test_a_newer_manifest_asks_for_an_upgrade(tiny_model: Path) -> None:
    edit(tiny_model, schema_version=99)
    with pytest.raises(ManifestError, match="Upgrade patchline"):
        open_engine(tiny_model)


@pytest.mark.parametrize("content", [lambda old: old[:-40], lambda old: old + b"x"])
def test_a_changed_model_file_is_noticed_by_its_digest(tiny_model: Path, content: Any) -> None:
    tiny_model.write_bytes(content(tiny_model.read_bytes()))
    with pytest.raises(ManifestError, match=r"onnx\.sha256 is .*copy both again"):
        open_engine(tiny_model)


def test_a_manifest_without_a_digest_is_refused(tiny_model: Path) -> None:
    edit(tiny_model, onnx=None)
    with pytest.raises(ManifestError, match="onnx: the field is missing"):
        open_engine(tiny_model)


def test_an_edited_manifest_is_noticed_by_the_models_own_copy(tiny_model: Path) -> None:
    edit(tiny_model, model_size={"height": 64, "width": 64}, score="distance")
    with pytest.raises(ManifestError, match=r"was edited\. score: .*; model_size: "):
        open_engine(tiny_model)


def test_the_threshold_may_be_edited(tiny_model: Path) -> None:
    threshold = json.loads(manifest_path(tiny_model).read_text())["threshold"]
    edit(tiny_model, threshold=threshold | {"value": 7.5})
    with open_engine(tiny_model) as engine:
        assert engine.manifest.threshold.value == 7.5


def test_another_way_to_resize_is_refused(tmp_path: Path) -> None:
    preprocessing = make_manifest().preprocessing.model_copy(update={"resize": "nearest"})
    model = write_tiny_model(tmp_path, make_manifest(preprocessing=preprocessing))
    with pytest.raises(ManifestError, match=r"preprocessing\.resize is 'nearest'"):
        open_engine(model)


def overwrite(model: Path, content: bytes) -> None:
    """Another model file, with a manifest whose digest is right."""
    model.write_bytes(content)
    write_manifest(model, make_manifest())


def test_what_onnx_runtime_cannot_open_is_a_sentence(tiny_model: Path) -> None:
    overwrite(tiny_model, tiny_model.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot open .*lamp\.onnx") as caught:
        open_engine(tiny_model)
    assert "\n" not in str(caught.value)


def test_a_model_of_somebody_else_is_refused(tiny_model: Path) -> None:
    overwrite(tiny_model, tiny_model_bytes({}))
    with pytest.raises(ModelError, match="it is no Patchline model"):
        open_engine(tiny_model)


def test_a_model_with_other_outputs_is_refused(tiny_model: Path) -> None:
    metadata = {contract.METADATA_KEY: make_manifest().to_json()}
    overwrite(tiny_model, tiny_model_bytes(metadata, ("a", "b", "c")))
    with pytest.raises(ModelError, match=r"has outputs \['a', 'b', 'c'\], expected"):
        open_engine(tiny_model)


def test_an_unknown_provider_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ConfigurationError, match="provider is 'tpu'"):
        open_engine(tiny_model, provider="tpu")


class FakeRuntime:
    """An ONNX Runtime that lists CUDA and then silently runs on the CPU."""

    __version__ = "1.20"

    def __init__(self, available: list[str]) -> None:
        self.available = available

    def get_available_providers(self) -> list[str]:
        return self.available

    def __getattr__(self, name: str) -> Any:
        import onnxruntime

        return getattr(onnxruntime, name)

    def InferenceSession(self, path: str, options: Any, providers: list[str]) -> Any:
        import onnxruntime

        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def test_int8_is_computed_exactly_on_every_processor(tiny_model: Path) -> None:
    with open_engine(tiny_model, provider="cpu") as engine:
        assert isinstance(engine, OnnxRuntimeEngine)
        options = engine._session.get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == "1"


def use(monkeypatch: pytest.MonkeyPatch, *available: str) -> None:
    runtime = FakeRuntime([f"{name}ExecutionProvider" for name in available])
    monkeypatch.setattr(module, "import_onnxruntime", lambda: runtime)


def test_cuda_that_was_not_built_in_gives_the_install_command(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "CPU")
    with pytest.raises(MissingExtraError, match=r'pip install "patchline\[gpu\]"'):
        open_engine(tiny_model, provider="cuda")


def test_cuda_that_does_not_load_is_an_error_when_it_was_asked_for(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "CUDA", "CPU")
    with pytest.raises(EngineError, match="did not load here"):
        open_engine(tiny_model, provider="cuda")


def test_cuda_that_does_not_load_is_said_when_the_choice_was_free(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, "CUDA", "CPU")
    with caplog.at_level(logging.WARNING), open_engine(tiny_model) as engine:
        assert "CPUExecutionProvider" in engine.description
    assert "CUDAExecutionProvider did not load here" in caplog.text


def test_a_missing_onnx_runtime_gives_the_install_command(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r'pip install "patchline\[cpu\]"'):
        open_engine(tiny_model)
