"""TensorRT for RTX builds half precision and INT8 as they are promised, on a CPU (DESIGN 5)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import onnx
import pytest

from patchline.export.backbone import PatchEmbedder
from patchline.export.describe import describe
from patchline.export.detector import Detector
from patchline.export.external_bank import ExternalDetector, graph_inputs
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import to_onnx
from patchline.export.precision.calibrate import find_ranges
from patchline.export.precision.half import half_detector
from patchline.export.precision.int8 import quantize_backbone
from patchline.runtime import contract
from patchline.runtime.contract import Manifest, Precision
from patchline.runtime.engine.build import Target, build_plan
from patchline.runtime.engine.compat import TENSORRT_RTX, load_flavour
from patchline.runtime.engine.plans.record import BuildOptions
from patchline.runtime.graph import (
    BANK_NEIGHBORS,
    BANK_SQUARES,
    BANK_STATISTICS,
    MEMORY_BANK,
    graph_of,
)
from patchline.runtime.progress import SilentSteps

from .drawn import CLASS_NAME, settings_with
from .variants import publish, variant_of
from .watched_tensorrt import Watched, watch

pytest.importorskip("tensorrt_rtx_bindings")

BACKBONES = ("resnet18", "wide_resnet50_2")
CONVOLUTIONS = {"resnet18": 15, "wide_resnet50_2": 43}
"""Up to layer 3; 4 and 10 blocks fewer than the whole."""
DYNAMIC, STATIC = (1, 1, 8), (4, 4, 4)
SCORE = "noise-response"


@dataclass(frozen=True)
class Built:
    """What came of one model.

    Attributes:
        onnx_bytes: size of its file.
        plan_bytes: size of the plan, by batch profile.
        seen: what was built, by batch profile.
    """

    onnx_bytes: int
    plan_bytes: dict[tuple[int, ...], int]
    seen: dict[tuple[int, ...], Watched]


Builds = Callable[[str, Precision, str], Built]
"""Of a backbone, a precision and the bank's place; each is built once."""


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing here may find, or leave, a timing cache of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def traced(detector: Detector, place: str) -> onnx.ModelProto:
    size = detector.embedder.size
    if place == "embedded":
        return to_onnx(detector, size)
    return to_onnx(ExternalDetector(detector), size, graph_inputs(detector.head))


def described(fitted: FittedModel, precision: Precision) -> Manifest:
    manifest = describe(fitted, settings_with(score=SCORE), None)
    bank = manifest.memory_bank.model_copy(
        update={"precision": "fp16" if precision == "fp16" else "fp32"}
    )
    return manifest.model_copy(update={"precision": precision, "memory_bank": bank})


@pytest.fixture(scope="module")
def builds(
    fitted: FittedModel, drawn_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Builds:
    folder = tmp_path_factory.mktemp("precisions")
    pictures = sorted((drawn_data / CLASS_NAME / "train" / "good").iterdir())

    @functools.cache
    def variant(backbone: str) -> FittedModel:
        embedder = PatchEmbedder(backbone, fitted.detector.embedder.size, "random")
        return variant_of(fitted, embedder, SCORE)

    @functools.cache
    def whole(backbone: str, place: str) -> onnx.ModelProto:
        return traced(variant(backbone).detector, place)

    def graph(backbone: str, precision: Precision, place: str) -> onnx.ModelProto:
        if precision == "fp16":
            return traced(half_detector(variant(backbone).detector, bank="fp16"), place)
        model = whole(backbone, place)
        if precision == "fp32":
            return model
        size = variant(backbone).detector.embedder.size
        ranges = find_ranges(model, pictures, size, "minmax", images=8)
        return quantize_backbone(model, ranges)

    @functools.cache
    def make(backbone: str, precision: Precision, place: str) -> Built:
        manifest = described(variant(backbone), precision)
        path = publish(
            graph(backbone, precision, place),
            folder / f"{backbone}-{precision}-{place}.onnx",
            manifest if place == "embedded" else graph_of(manifest),
        )
        made = Built(path.stat().st_size, {}, {})
        for batch in (DYNAMIC, STATIC):
            flavour, seen = watch(load_flavour(TENSORRT_RTX))
            plan = path.with_suffix(".trt")
            build_plan(path, plan, Target(flavour, None, BuildOptions(batch=batch)), SilentSteps())
            made.seen[batch], made.plan_bytes[batch] = seen, plan.stat().st_size
            plan.unlink()
        path.unlink()
        return made

    return make


@pytest.fixture(
    params=[
        ("resnet18", "embedded"),
        ("resnet18", "external"),
        ("wide_resnet50_2", "embedded"),
        # What it adds, the wide backbone and the bank beside, is each in one of those above.
        pytest.param(("wide_resnet50_2", "external"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def backbone(case: tuple[str, str]) -> str:
    return case[0]


@pytest.fixture
def place(case: tuple[str, str]) -> str:
    return case[1]


@pytest.fixture(params=[DYNAMIC, STATIC], ids=["dynamic", "static"])
def batch(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    found: tuple[int, int, int] = request.param
    return found


@pytest.fixture
def half(builds: Builds, backbone: str, place: str, batch: tuple[int, int, int]) -> Watched:
    return builds(backbone, "fp16", place).seen[batch]


@pytest.fixture
def int8(builds: Builds, backbone: str, place: str, batch: tuple[int, int, int]) -> Watched:
    return builds(backbone, "int8", place).seen[batch]


class TestHalf:
    def test_every_convolution_is_half(self, half: Watched, backbone: str) -> None:
        assert half.strongly_typed
        assert half.kinds["CONVOLUTION"] == ["HALF"] * CONVOLUTIONS[backbone]

    def test_frames_and_outputs_are_as_ever(
        self, half: Watched, batch: tuple[int, int, int]
    ) -> None:
        assert half.inputs[0][:2] == (contract.FRAMES, "UINT8")
        assert [kind for _, kind, _ in half.outputs] == ["FLOAT"] * 3
        assert [shape[0] for shape in half.profile[contract.FRAMES]] == list(batch)

    def test_the_search_multiplies_in_half_and_nothing_else_does(self, half: Watched) -> None:
        products = half.kinds["MATRIX_MULTIPLY"]
        assert products.count("HALF") == 1 and "FLOAT" in products
        assert set(half.kinds["REDUCE"]) == {"FLOAT"}
        assert set(half.kinds["TOPK"]) - {"INT32", "INT64"} == {"FLOAT"}

    def test_a_bank_beside_is_half_and_its_squares_are_not(self, half: Watched, place: str) -> None:
        kinds = {name: kind for name, kind, _ in half.inputs[1:]}
        beside = {MEMORY_BANK: "HALF", BANK_SQUARES: "FLOAT", BANK_STATISTICS: "FLOAT"}
        assert kinds == (beside if place == "external" else {})
        if place == "external":  # nine neighbours and eight spares, a group for each
            assert half.profile[MEMORY_BANK][0][0] == 32 * 17


class TestInt8:
    def test_the_backbone_is_quantised_and_back(self, int8: Watched, backbone: str) -> None:
        assert int8.strongly_typed
        assert len(int8.kinds["CONVOLUTION"]) == CONVOLUTIONS[backbone]
        assert set(int8.kinds["QUANTIZE"]) == {"INT8"}
        assert set(int8.kinds["DEQUANTIZE"]) == {"FLOAT"}
        # A pair for the input and one for the weights of each convolution, at least.
        assert len(int8.kinds["DEQUANTIZE"]) >= 2 * CONVOLUTIONS[backbone]

    def test_search_and_head_are_float32(self, int8: Watched) -> None:
        assert set(int8.kinds["MATRIX_MULTIPLY"]) == {"FLOAT"}
        assert set(int8.kinds["REDUCE"]) == {"FLOAT"}
        assert "HALF" not in int8.types

    def test_frames_and_outputs_are_as_ever(
        self, int8: Watched, batch: tuple[int, int, int]
    ) -> None:
        assert int8.inputs[0][:2] == (contract.FRAMES, "UINT8")
        assert [kind for _, kind, _ in int8.outputs] == ["FLOAT"] * 3
        assert [shape[0] for shape in int8.profile[contract.FRAMES]] == list(batch)

    def test_a_bank_beside_is_float32(self, int8: Watched, place: str) -> None:
        assert [kind for _, kind, _ in int8.inputs[1:]] == ["FLOAT"] * (
            3 if place == "external" else 0
        )


@pytest.mark.parametrize("backbone", BACKBONES)
def test_files_and_plans_shrink(builds: Builds, backbone: str) -> None:
    """INT8 keeps float32 weights in its file, and only the plan is smaller."""
    whole, half, int8 = (
        builds(backbone, precision, "embedded") for precision in get_args(Precision)
    )
    assert half.onnx_bytes <= 0.55 * whole.onnx_bytes
    assert whole.onnx_bytes < int8.onnx_bytes < 1.02 * whole.onnx_bytes
    for batch in (DYNAMIC, STATIC):
        assert half.plan_bytes[batch] < 0.8 * whole.plan_bytes[batch]
        assert int8.plan_bytes[batch] < 0.9 * whole.plan_bytes[batch]


def test_the_score_that_needs_neighbours_of_rows_builds_with_a_half_bank(
    fitted: FittedModel, tmp_path: Path
) -> None:
    embedder = fitted.detector.embedder
    variant = variant_of(fitted, embedder, "patchcore")
    half = half_detector(variant.detector, bank="fp16")
    manifest = graph_of(described(replace(variant, detector=half), "fp16"))
    path = publish(
        traced(half, "external"),
        tmp_path / "patchcore.onnx",
        manifest.model_copy(update={"score": "patchcore"}),
    )
    flavour, seen = watch(load_flavour(TENSORRT_RTX))
    target = Target(flavour, None, BuildOptions(batch=DYNAMIC))
    build_plan(path, tmp_path / "patchcore.trt", target, SilentSteps())
    assert [kind for name, kind, _ in seen.inputs if name == BANK_NEIGHBORS] == ["INT64"]
    assert seen.kinds["MATRIX_MULTIPLY"].count("HALF") == 1
