"""Which TensorRT is taken, and that what is taken from it exists in every supported version."""

from __future__ import annotations

import ast
import importlib
import json
import types
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.engine import compat
from patchline.runtime.engine.compat import load_flavour
from patchline.runtime.engine.inference.plan_io import DTYPES
from patchline.runtime.errors import ConfigurationError, EngineError, MissingExtraError

ENGINE = Path(__file__).parents[2] / "runtime" / "engine"
API = sorted((Path(__file__).parent / "tensorrt_api").glob("api-*.json"))

CLASSES = {
    "trt": "top",
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "cache": "ITimingCache",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
}
"""Our names for TensorRT's objects, also as attributes: ``self._context``."""

BUILDING = ("build", "plans/build_log", "plans/build_progress", "compat", "plans/timing_cache")
RUNNING = (
    "plans/plan_file",
    "inference/plan_io",
    "inference/compute",
    "inference/runs",
    "inference/loaded_plan",
)
MODULES = BUILDING + RUNNING


def taken(source: str) -> set[tuple[str, str]]:
    """Class and attribute of everything a module takes from TensorRT's objects."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        if name_of(owner) in CLASSES:
            found.add((CLASSES[name_of(owner)], node.attr))
        elif isinstance(owner, ast.Attribute) and name_of(owner.value) == "trt":
            found.add((owner.attr, node.attr))
    return found


def name_of(node: ast.expr) -> str:
    """``context`` of ``context`` and of ``self._context``."""
    if isinstance(node, ast.Attribute):
        return node.attr.removeprefix("_")
    return node.id if isinstance(node, ast.Name) else ""


def missing(source: str, api: dict[str, Any]) -> set[tuple[str, str]]:
    own = {"__init__", "__version__"}
    return {
        (name, attribute)
        for name, attribute in taken(source)
        if attribute not in own and name in api and attribute not in (api[name] or [])
    }


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
@pytest.mark.parametrize("module", MODULES)
def test_what_is_taken_exists_in_every_version(module: str, path: Path) -> None:
    source = (ENGINE / f"{module}.py").read_text(encoding="utf-8")
    assert missing(source, json.loads(path.read_text())) == set()


def test_all_versions_are_held_against() -> None:
    assert [path.stem.removeprefix("api-")[:4] for path in API] == ["10.1", "10.3", "11.4"]
    source = "".join((ENGINE / f"{module}.py").read_text() for module in MODULES)
    assert ("IBuilderConfig", "set_timing_cache") in taken(source)
    assert ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") in taken(source)
    assert {
        ("top", "Runtime"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "get_tensor_profile_shape"),
        ("ICudaEngine", "device_memory_size_v2"),
        ("ExecutionContextAllocationStrategy", "USER_MANAGED"),
        ("TensorIOMode", "INPUT"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "set_device_memory"),
    } <= taken(source)


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_the_types_of_tensors_exist_in_every_version(path: Path) -> None:
    assert set(DTYPES) <= set(json.loads(path.read_text())["DataType"])


def test_what_runs_a_plan_exists_in_tensorrt_for_rtx() -> None:
    """In the module itself, which is installed for the tests."""
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    source = "".join((ENGINE / f"{module}.py").read_text() for module in RUNNING)
    for owner, attribute in taken(source):
        assert hasattr(trt if owner == "top" else getattr(trt, owner), attribute)
    assert all(hasattr(trt.DataType, name) for name in DTYPES)


@pytest.mark.parametrize(
    "source",
    [
        "trt.BuilderFlag.FP16",
        "config.int8_calibrator = 1",
        "builder.platform_has_fast_fp16",
        "engine.device_memory_size",
        "self._context.execute_async_v2(1)",
        "self.flavour.trt.DataType.FP128",
    ],
)
def test_what_a_version_dropped_is_found(source: str) -> None:
    newest = json.loads(API[-1].read_text())
    assert missing(source, newest)


class Installed:
    """Stands for what is installed: module names and versions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **versions: str | Exception) -> None:
        self.versions = versions
        monkeypatch.setattr(importlib, "import_module", self.load)

    def load(self, name: str) -> types.ModuleType:
        found = self.versions.get(name)
        if found is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if isinstance(found, Exception):
            raise found
        module = types.ModuleType(name)
        module.__version__ = found  # type: ignore[attr-defined]
        return module


class TestChoice:
    def test_tensorrt_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Installed(monkeypatch, tensorrt="10.3.0", tensorrt_rtx="1.7.1")
        assert (load_flavour().name, load_flavour().version) == ("tensorrt", "10.3.0")
        assert load_flavour("tensorrt-rtx").trt.__name__ == "tensorrt_rtx"

    def test_rtx_where_it_is_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Installed(monkeypatch, tensorrt_rtx_bindings="1.7.1.116")
        found = load_flavour()
        assert found.name == "tensorrt-rtx"
        assert str(found) == "TensorRT for RTX 1.7.1.116"

    @pytest.mark.parametrize("name", [None, *compat.FLAVOURS])
    def test_none_at_all_gives_the_pip_line(
        self, monkeypatch: pytest.MonkeyPatch, name: str | None
    ) -> None:
        Installed(monkeypatch)
        with pytest.raises(MissingExtraError) as error:
            load_flavour(name)
        assert f'pip install "patchline[{name or "tensorrt"}]"' in str(error.value)
        assert "JetPack" in str(error.value)

    def test_an_unknown_name(self) -> None:
        with pytest.raises(ConfigurationError, match="expected one of: tensorrt, tensorrt-rtx"):
            load_flavour("openvino")

    def test_one_that_is_too_old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Installed(monkeypatch, tensorrt="8.6.2")
        with pytest.raises(EngineError, match=r"TensorRT 8\.6\.2 is too old.*10\.3"):
            load_flavour()

    @pytest.mark.parametrize(
        "failure",
        [
            ImportError("libnvinfer.so.10: cannot open shared object file"),
            OSError("libcuda.so.1: cannot open shared object file"),
            ModuleNotFoundError("No module named 'tensorrt_libs'", name="tensorrt_libs"),
        ],
    )
    def test_one_that_does_not_load_is_not_passed_over(
        self, monkeypatch: pytest.MonkeyPatch, failure: Exception
    ) -> None:
        Installed(monkeypatch, tensorrt=failure, tensorrt_rtx="1.7.1")
        with pytest.raises(EngineError, match="tensorrt does not load"):
            load_flavour()
