"""TensorRT for RTX builds every kind of exported model on a CPU, through our builder (DESIGN 5)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from patchline.export.backbone import PatchEmbedder
from patchline.export.config import METHOD_SCORES
from patchline.export.config_train import DISTILLATION
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.external_bank import bank_tensors
from patchline.export.fit import FittedModel
from patchline.export.pruned import with_pruned_search
from patchline.export.scores import SCORES
from patchline.runtime import contract
from patchline.runtime.contract import (
    DistanceStatistics,
    Manifest,
    ModelSize,
    PrunedSearch,
    load_manifest,
    manifest_path,
)
from patchline.runtime.engine.build import Target, build_plan
from patchline.runtime.engine.compat import TENSORRT_RTX, load_flavour
from patchline.runtime.engine.plans.build_log import shared_log
from patchline.runtime.engine.plans.record import BuildOptions, PlanRecord, load_record
from patchline.runtime.errors import ModelError
from patchline.runtime.graph import (
    BANK_NEIGHBORS,
    BANK_SQUARES,
    BANK_STATISTICS,
    MEMORY_BANK,
    ROW_NEIGHBORS,
    GraphManifest,
    load_any_manifest,
)
from patchline.runtime.progress import SilentSteps

from .variants import variant_of, write_graph, write_model
from .watched_tensorrt import Tensor, Watched, watch

trt = pytest.importorskip("tensorrt_rtx_bindings")

BACKBONES = ("resnet18", "wide_resnet50_2")
BATCH = (1, 1, 8)
LOWER_TYPES = {"HALF", "BF16", "FP8", "INT8", "INT4", "FP4"}


@dataclass(frozen=True)
class Built:
    """What came of one model: kept without its files, since wide ones are 200 MB each.

    Attributes:
        manifest: of the model.
        record: of the plan.
        plan_bytes: size of the plan.
        seen: what was built.
        bank: a product's tensors for it, by name; empty where the bank is in the model.
    """

    manifest: Manifest | GraphManifest
    record: PlanRecord
    plan_bytes: int
    seen: Watched
    bank: dict[str, npt.NDArray[Any]]


Builds = Callable[[str, str, str], Built]
"""Of a backbone, a score and the bank's place; each is built once."""


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing here may find, or leave, a timing cache of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def build(model: Path) -> tuple[Path, Watched]:
    """Build ``model.trt`` beside the model, as ``build-engine`` does."""
    flavour, seen = watch(load_flavour(TENSORRT_RTX))
    plan = model.with_suffix(".trt")
    build_plan(model, plan, Target(flavour, None, BuildOptions(batch=BATCH)), SilentSteps())
    return plan, seen


def expected_outputs(size: ModelSize) -> list[Tensor]:
    return [
        (contract.IMAGE_SCORE, "FLOAT", (-1,)),
        (contract.ANOMALY_MAP, "FLOAT", (-1, size.height, size.width)),
        (contract.INFLUENCE_MAP, "FLOAT", (-1, size.height, size.width)),
    ]


def test_every_method_has_a_score_that_is_built() -> None:
    # A distilled model has no score to choose: see distillation/test_tensorrt.py.
    scores = {score for method, score in METHOD_SCORES.items() if method != DISTILLATION}
    assert scores <= set(SCORES)


@pytest.fixture(scope="module")
def builds(fitted: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    folder = tmp_path_factory.mktemp("variants")

    @functools.cache
    def embedder(backbone: str) -> PatchEmbedder:
        return PatchEmbedder(backbone, fitted.detector.embedder.size, "random")

    @functools.cache
    def make(backbone: str, score: str, place: str) -> Built:
        variant = variant_of(fitted, embedder(backbone), score)
        write = {"embedded": write_model, "external": write_graph}[place]
        model = write(variant, score, folder)
        plan, seen = build(model)
        bank = bank_tensors(variant.detector.head) if place == "external" else {}
        manifest = load_any_manifest(manifest_path(model))
        made = Built(manifest, load_record(plan), plan.stat().st_size, seen, bank)
        model.unlink()
        plan.unlink()
        return made

    return make


def marks(backbone: str, score: str) -> tuple[pytest.MarkDecorator, ...]:
    """A wide backbone takes most of the time: with one score it is built quickly, that of a bank
    whose rows have neighbours; the heads of the others do not know how wide it is.
    """
    return (pytest.mark.slow,) if backbone != BACKBONES[0] and score != "patchcore" else ()


@pytest.fixture(
    params=[
        pytest.param((backbone, score), marks=marks(backbone, score))
        for backbone in BACKBONES
        for score in sorted(SCORES)
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
def score(case: tuple[str, str]) -> str:
    return case[1]


@pytest.fixture
def embedded(builds: Builds, backbone: str, score: str) -> Built:
    return builds(backbone, score, "embedded")


@pytest.fixture
def external(builds: Builds, backbone: str, score: str) -> Built:
    return builds(backbone, score, "external")


@pytest.fixture(params=["embedded", "external"])
def built(request: pytest.FixtureRequest, builds: Builds, backbone: str, score: str) -> Built:
    return builds(backbone, score, str(request.param))


class TestBothPlacesOfTheBank:
    """What holds wherever the bank is."""

    def test_the_frames_are_the_manifests(self, built: Built) -> None:
        size = built.manifest.model_size
        expected = (contract.FRAMES, "UINT8", (-1, size.height, size.width, 3))
        assert built.seen.inputs[0] == expected

    def test_the_outputs_are_the_contracts(self, built: Built) -> None:
        assert built.seen.outputs == expected_outputs(built.manifest.model_size)

    def test_batches_of_one_to_eight_are_what_it_is_built_for(self, built: Built) -> None:
        size = built.manifest.model_size
        frame = (size.height, size.width, 3)
        assert built.seen.profile[contract.FRAMES] == tuple((count, *frame) for count in BATCH)
        assert built.record.options.batch == BATCH

    def test_types_come_from_the_file_and_none_is_lower_than_float32(self, built: Built) -> None:
        seen = built.seen
        assert seen.strongly_typed and not seen.tf32
        assert "FLOAT" in seen.types
        assert not seen.types & LOWER_TYPES

    def test_the_plan_holds_the_weights(self, built: Built, backbone: str) -> None:
        weights = {"resnet18": 10 << 20, "wide_resnet50_2": 90 << 20}[backbone]
        assert built.plan_bytes > weights


class TestBankInside:
    def test_the_frames_are_the_only_input(self, embedded: Built) -> None:
        assert [name for name, _, _ in embedded.seen.inputs] == [contract.FRAMES]
        assert set(embedded.seen.profile) == {contract.FRAMES}
        assert embedded.record.options.bank_rows is None


class TestBankBeside:
    def test_the_inputs_are_the_frames_and_a_bank_of_the_manifests_dimension(
        self, external: Built, score: str
    ) -> None:
        manifest = external.manifest
        assert isinstance(manifest, GraphManifest)
        expected = [
            (MEMORY_BANK, "FLOAT", (-1, manifest.dimension)),
            (BANK_SQUARES, "FLOAT", (-1,)),
            (BANK_STATISTICS, "FLOAT", (3,)),
        ]
        if score == "patchcore":
            expected.append((BANK_NEIGHBORS, "INT64", (-1, ROW_NEIGHBORS)))
        assert external.seen.inputs[1:] == expected

    def test_the_profile_takes_banks_from_the_least_to_the_most_rows(self, external: Built) -> None:
        manifest, profile = external.manifest, external.seen.profile
        rows = external.record.options.bank_rows
        assert isinstance(manifest, GraphManifest)
        assert rows is not None and rows[0] == manifest.least_rows
        assert profile[MEMORY_BANK] == tuple((count, manifest.dimension) for count in rows)
        assert profile[BANK_SQUARES] == tuple((count,) for count in rows)
        if BANK_NEIGHBORS in profile:
            assert profile[BANK_NEIGHBORS] == tuple((count, ROW_NEIGHBORS) for count in rows)

    def test_a_products_bank_is_what_the_network_takes(self, external: Built) -> None:
        inputs, numpy_types = external.seen.inputs[1:], {"FLOAT": "float32", "INT64": "int64"}
        assert list(external.bank) == [name for name, _, _ in inputs]
        for name, dtype, shape in inputs:
            given = external.bank[name]
            assert str(given.dtype) == numpy_types[dtype]
            assert given.shape[1:] == shape[1:]
            least, _, most = external.seen.profile.get(name, (shape, shape, shape))
            assert least[0] <= len(given) <= most[0]


def test_the_published_file_with_its_manifest_builds(model: Path) -> None:
    plan, seen = build(model)
    size = load_manifest(manifest_path(model)).model_size
    assert plan.is_file() and seen.outputs == expected_outputs(size)


@pytest.fixture(scope="module")
def full_size(fitted: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 px and 8,001 rows, which the bank's groups of 32 do not divide."""
    size = ModelSize(height=256, width=256)
    embedder = PatchEmbedder("resnet18", size, "random")
    bank = torch.randn(8001, embedder.dimension, generator=torch.Generator().manual_seed(0))
    statistics = DistanceStatistics(mean=20.0, std=2.0)
    head = AnomalyHead(bank, statistics, embedder.grid, size, score="noise-response", neighbors=9)
    large = replace(fitted, detector=Detector(embedder, head), memory_bank=bank, row_pictures=None)
    return write_model(large, "noise-response", tmp_path_factory.mktemp("full"))


def test_a_model_of_usual_size_builds_and_holds_its_bank_once(full_size: Path) -> None:
    plan, _ = build(full_size)
    bank_bytes = 8032 * 384 * 4
    # Room for padding and kernels, and none for a transposed copy of the bank.
    assert plan.stat().st_size < full_size.stat().st_size + bank_bytes // 2


def test_a_plan_does_not_load_without_a_gpu_and_does_not_crash(model: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    plan, _ = build(model)
    log = shared_log(trt)
    log.errors = []  # of what was refused before
    assert trt.Runtime(log).deserialize_cuda_engine(plan.read_bytes()) is None
    assert log.errors


def test_a_refused_file_says_which_node_the_parser_did_not_like(
    model: Path, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("Cast", [contract.FRAMES], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Det", ["pixels"], ["image_score"], name="determinant"),
    ]
    frames = helper.make_tensor_value_info(contract.FRAMES, TensorProto.UINT8, ["batch", 8, 8])
    score = helper.make_tensor_value_info("image_score", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "refused", [frames], [score])
    refused = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(refused, str(model))
    manifest = load_manifest(manifest_path(model))
    file = contract.OnnxFile(file=model.name, sha256=contract.model_digest(model))
    manifest.model_copy(update={"onnx": file}).save(manifest_path(model))
    plan = model.with_suffix(".trt")
    with pytest.raises(ModelError, match=r"refuses gasket\.onnx: node determinant \(Det\): "):
        build(model)
    assert not plan.exists()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_pruned_search_is_built(fitted: FittedModel, backbone: str, tmp_path: Path) -> None:
    embedder = PatchEmbedder(backbone, fitted.detector.embedder.size, "random")
    variant = variant_of(fitted, embedder, "patchcore")
    plan = PrunedSearch(leading=30, candidates=32)
    pruned = replace(variant, detector=with_pruned_search(variant.detector, plan))
    _, seen = build(write_model(pruned, "patchcore", tmp_path))
    assert seen.outputs == expected_outputs(embedder.size)
    assert not seen.types & LOWER_TYPES
