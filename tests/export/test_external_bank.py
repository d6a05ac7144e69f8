"""A bank beside the graph: the same numbers, one graph for every product, nothing mixed up."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchline.export import external_files
from patchline.export.config import FitSettings
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.exporter import check_target, export_model, leftovers
from patchline.export.external_bank import (
    ExternalDetector,
    bank_tensors,
    check_external,
    graph_inputs,
)
from patchline.export.external_files import graph_path
from patchline.export.fit import FittedModel
from patchline.export.neighbors import NearestNeighbors
from patchline.export.parity import verify_parity
from patchline.export.precision import form, verify
from patchline.export.scores import SCORES
from patchline.export.state import load_state
from patchline.runtime import contract
from patchline.runtime.bank import load_bank, save_bank
from patchline.runtime.contract import manifest_path
from patchline.runtime.engine import open_engine
from patchline.runtime.engine.plans.build_log import shared_log
from patchline.runtime.errors import (
    ConfigurationError,
    ManifestError,
    ModelError,
    ParityError,
)
from patchline.runtime.graph import (
    BANK_NEIGHBORS,
    BANK_SQUARES,
    GraphManifest,
    bank_inputs,
    load_any_manifest,
)
from patchline.runtime.preprocess import Frame
from patchline.runtime.progress import SilentSteps

from .conftest import ByScore
from .drawn import QUICK, settings_with
from .made_once import to_onnx_once

K = QUICK.neighbors
EXTERNAL = settings_with(bank="external")

Arrays = list[np.ndarray]
Graphs = Callable[[str], onnx.ModelProto]


def head_over(bank: Tensor, like: Detector, score: str, neighbors: int = K) -> AnomalyHead:
    """A head over another bank, with statistics of its own."""
    embedder = like.embedder
    statistics = contract.DistanceStatistics(mean=float(len(bank)) / 20, std=1.5)
    return AnomalyHead(
        bank, statistics, embedder.grid, embedder.size, score=score, neighbors=neighbors
    )


@pytest.fixture(scope="module")
def graphs(by_score: ByScore) -> Graphs:
    """The graph without a bank for each score, made once."""

    @functools.cache
    def make(score: str) -> onnx.ModelProto:
        detector = by_score(score)[0]
        inputs = graph_inputs(detector.head)
        return to_onnx_once(ExternalDetector(detector), detector.embedder.size, inputs)

    return make


@pytest.fixture(scope="module")
def session(graphs: Graphs) -> Callable[[str], Any]:
    @functools.cache
    def make(score: str) -> Any:
        content = graphs(score).SerializeToString()
        return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    return make


def largest_difference(expected: Arrays, found: Arrays) -> float:
    """Relative to each output's largest value; the influence map lies in 0 to 1."""
    pairs = zip(expected, found, (None, None, 1.0), strict=True)
    return max(float(np.abs(a - b).max() / (scale or np.abs(a).max())) for a, b, scale in pairs)


class TestSearch:
    @given(
        rows=st.integers(1, 150),
        k=st.integers(1, 12),
        more_groups=st.integers(0, 4),
        seed=st.integers(0, 99),
    )
    @example(rows=9, k=9, more_groups=0, seed=0)
    @example(rows=1, k=1, more_groups=3, seed=0)
    @settings(max_examples=150, deadline=None)
    def test_rows_that_fill_up_are_never_among_the_nearest(
        self, rows: int, k: int, more_groups: int, seed: int
    ) -> None:
        """Against a sort of all distances in float64."""
        k = min(k, rows)
        generator = torch.Generator().manual_seed(seed)
        bank, queries = (torch.randn(n, 5, generator=generator) * 100 for n in (rows, 20))
        search = NearestNeighbors(bank, k)
        fill = 32 * (max(k, -(-rows // 32)) + more_groups) - len(search.get_buffer("bank"))
        given_ = {
            "bank": torch.nn.functional.pad(search.get_buffer("bank"), (0, 0, 0, fill)),
            "squares": torch.nn.functional.pad(search.get_buffer("squares"), (0, fill), value=1e30),
        }
        found = torch.func.functional_call(search, given_, (queries,))
        distances = torch.cdist(queries.double(), bank.double())
        assert found.max() < rows
        assert all(len(set(row)) == k for row in found.tolist())
        nearest = distances.sort(dim=1).values[:, :k]
        torch.testing.assert_close(distances.gather(1, found), nearest, rtol=1e-3, atol=1e-2)

    def test_a_bank_is_filled_up_to_whole_groups_and_to_k_of_them(
        self, fitted: FittedModel
    ) -> None:
        width = fitted.memory_bank.shape[1]
        for rows, filled in ((9, 288), (288, 288), (289, 320), (320, 320)):
            head = head_over(torch.rand(rows, width), fitted.detector, "patchcore")
            tensors = bank_tensors(head)
            assert tuple(tensors) == bank_inputs("patchcore")
            assert {len(tensors[name]) for name in tensors.keys() - {"bank_statistics"}} == {filled}
            assert (tensors[BANK_SQUARES][rows:] == np.float32(1e30)).all()
            assert (tensors[BANK_SQUARES][:rows] < 1e6).all()
            assert tensors[BANK_NEIGHBORS].max() < rows


class TestNumbers:
    @pytest.mark.parametrize("score", sorted(SCORES))
    @pytest.mark.parametrize("batch", [1, 3])
    def test_it_computes_what_the_embedded_model_does(
        self, by_score: ByScore, session: Any, seven_frames: Frame, score: str, batch: int
    ) -> None:
        detector, path = by_score(score)
        frames = seven_frames[-batch:]
        embedded = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        expected = embedded.run(None, {contract.FRAMES: frames})
        found = session(score).run(None, {contract.FRAMES: frames, **bank_tensors(detector.head)})
        assert [a.shape for a in found] == [a.shape for a in expected]
        assert largest_difference(expected, found) < 1e-4

    @pytest.mark.parametrize("score", sorted(SCORES))
    def test_in_torch_it_is_the_same_bit_by_bit(
        self, by_score: ByScore, seven_frames: Frame, score: str
    ) -> None:
        detector = by_score(score)[0]
        tensors = [torch.from_numpy(array) for array in bank_tensors(detector.head).values()]
        frames = torch.from_numpy(seven_frames)
        with torch.inference_mode():
            found = ExternalDetector(detector)(frames, *tensors)
        for a, b in zip(detector.predict(frames), found, strict=True):
            assert torch.equal(a, b)

    @pytest.mark.parametrize("score", sorted(SCORES))
    def test_one_graph_serves_banks_of_any_size(
        self, by_score: ByScore, session: Any, seven_frames: Frame, score: str
    ) -> None:
        detector, frames = by_score(score)[0], seven_frames[:2]
        with torch.inference_mode():
            embeddings = detector.embedder(torch.from_numpy(frames))
        middle, spread = embeddings.mean(), embeddings.std()

        @given(rows=st.integers(K, 700), seed=st.integers(0, 1000))
        @example(rows=K, seed=0)
        @settings(max_examples=12, deadline=None)
        def check(rows: int, seed: int) -> None:
            generator = torch.Generator().manual_seed(seed)
            # Far enough from one another that rounding never decides which nine are nearest.
            order = torch.randperm(rows, generator=generator)
            distances = 2 * 1.25 ** order.clamp(max=K + 3)
            directions = torch.randn(rows, embeddings.shape[3], generator=generator)
            bank = middle + spread * distances[:, None] * directions
            head = head_over(bank, detector, score)
            with torch.inference_mode():
                expected = [output.numpy() for output in head(embeddings)]
            found = session(score).run(None, {contract.FRAMES: frames, **bank_tensors(head)})
            assert largest_difference(expected, found) < 1e-3

        check()


class TestGraph:
    @pytest.mark.parametrize("score", ["noise-response", "patchcore"])
    def test_nothing_of_a_product_is_in_it(
        self, by_score: ByScore, graphs: Graphs, score: str
    ) -> None:
        """Byte by byte, from products whose banks differ in rows, values and statistics."""
        detector = by_score(score)[0]
        head = head_over(torch.rand(50, 384) * 7, detector, score)
        other = Detector(detector.embedder, head)
        model = to_onnx_once(ExternalDetector(other), detector.embedder.size, graph_inputs(head))
        assert model.SerializeToString() == graphs(score).SerializeToString()

    @pytest.mark.parametrize("score", sorted(SCORES))
    def test_inputs_and_constants(self, graphs: Graphs, score: str) -> None:
        model = graphs(score)
        onnx.checker.check_model(model, full_check=True)
        assert [item.name for item in model.graph.input] == ["frames", *bank_inputs(score)]
        axes = [a.dim_param or a.dim_value for a in model.graph.input[1].type.tensor_type.shape.dim]
        assert axes == ["32*groups", 384]
        assert not [t.name for t in model.graph.initializer if 384 in t.dims]

    @pytest.mark.parametrize("score", sorted(SCORES))
    def test_the_search_takes_a_fixed_number_of_neighbours(
        self, graphs: Graphs, score: str
    ) -> None:
        graph = graphs(score).graph
        constants = {t.name for t in graph.initializer}
        tops = [node for node in graph.node if node.op_type == "TopK"]
        assert len(tops) == 2 and all(node.input[1] in constants for node in tops)
        readers = [node for node in graph.node if contract.FRAMES in node.input]
        assert [node.op_type for node in readers if node.op_type != "Shape"] == ["Cast"]

    @pytest.mark.parametrize("score", ["noise-response", "patchcore"])
    def test_tensorrt_builds_it_for_several_frames_and_sizes_of_bank(
        self, graphs: Graphs, score: str
    ) -> None:
        trt = pytest.importorskip("tensorrt_rtx_bindings")
        log = shared_log(trt)
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        assert parser.parse(graphs(score).SerializeToString()), parser.get_error(0).desc()
        profile, config = builder.create_optimization_profile(), builder.create_builder_config()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            rest, counts = tuple(tensor.shape)[1:], (288, 2048, 8192)
            if tensor.name == contract.FRAMES:
                counts = (1, 1, 8)
            if -1 in tuple(tensor.shape):
                profile.set_shape(tensor.name, *((count, *rest) for count in counts))
        assert config.add_optimization_profile(profile) == 0
        plan = builder.build_serialized_network(network, config)
        assert plan is not None and plan.nbytes > 8 << 20


class TestTooSmall:
    @pytest.mark.parametrize(("rows", "k", "score"), [
        (8, 9, "distance"), (1, 2, "noise-response"), (8, 3, "patchcore"), (11, 12, "patchcore"),
    ])  # fmt: skip
    def test_a_bank_that_has_fewer_rows_than_neighbours(
        self, rows: int, k: int, score: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=rf"has {rows} rows.*--bank embedded"):
            check_external(rows, k, score)

    @pytest.mark.parametrize(("rows", "k", "score"), [
        (9, 9, "distance"), (3, 3, "noise-response"), (9, 3, "patchcore"), (12, 12, "patchcore"),
    ])  # fmt: skip
    def test_as_many_are_enough(self, rows: int, k: int, score: str) -> None:
        check_external(rows, k, score)

    def test_the_export_refuses_it(self, fitted: FittedModel, tmp_path: Path) -> None:
        small = with_bank(fitted, fitted.memory_bank[:8], "lid")
        with pytest.raises(ConfigurationError, match="the memory bank has 8 rows"):
            export_model(small, EXTERNAL, tmp_path, SilentSteps())
        assert [*tmp_path.iterdir()] == []


def with_bank(fitted: FittedModel, bank: Tensor, name: str) -> FittedModel:
    """The fit of another class: its bank and threshold are others."""
    head = head_over(bank, fitted.detector, QUICK.score_name)
    return replace(
        fitted,
        detector=Detector(fitted.detector.embedder, head),
        memory_bank=bank,
        row_pictures=torch.arange(len(bank), dtype=torch.int32) % len(fitted.picture_digests),
        statistics=contract.DistanceStatistics(mean=len(bank) / 20, std=1.5),
        threshold=fitted.threshold.model_copy(update={"value": 123.0}),
        pictures=replace(fitted.pictures, class_name=name),
    )


@pytest.fixture(scope="module")
def lid(fitted: FittedModel) -> FittedModel:
    return with_bank(fitted, fitted.memory_bank[:100] + 0.5, "lid")


@pytest.fixture(scope="module")
def published(
    fitted: FittedModel, lid: FittedModel, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two classes and their graph, exported one after the other; only to be read."""
    out = tmp_path_factory.mktemp("external")
    for model in (fitted, lid):
        export_model(model, EXTERNAL, out, SilentSteps())
    return out


@pytest.fixture
def models(published: Path, tmp_path: Path) -> Path:
    """A copy of them, to be damaged at will."""
    out = tmp_path / "models"
    out.mkdir()
    for path in published.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    names = before.keys() | after.keys()
    return {name for name in names if before.get(name) != after.get(name)}


class TestFiles:
    def test_a_graph_for_both_and_a_bank_for_each(self, published: Path) -> None:
        assert sorted(contents(published)) == [
            "gasket.bank",
            "gasket.safetensors",
            "lid.bank",
            "lid.safetensors",
            "resnet18-64.json",
            "resnet18-64.onnx",
        ]

    def test_the_manifests_say_what_was_fitted(self, published: Path, lid: FittedModel) -> None:
        graph = load_any_manifest(published / "resnet18-64.json")
        assert isinstance(graph, GraphManifest) and graph.onnx is not None
        content = (published / "resnet18-64.onnx").read_bytes()
        assert graph.onnx.sha256 == hashlib.sha256(content).hexdigest()
        bank = load_bank(published / "lid.bank")
        assert (bank.manifest.class_name, bank.manifest.memory_bank.rows) == ("lid", 100)
        assert bank.manifest.onnx is None and bank.rows == 288
        assert bank.manifest.parity is not None
        assert bank.manifest.parity.image_score_max_relative_error < 1e-4
        state = load_state(published / "lid.safetensors")
        assert state.bank == "external" and state.manifest == bank.manifest
        assert torch.equal(state.memory_bank, lid.memory_bank)

    def test_the_engine_computes_each_product_and_changes_between_frames(
        self, published: Path, fitted: FittedModel, lid: FittedModel, seven_frames: Frame
    ) -> None:
        frames = torch.from_numpy(seven_frames)
        graph = published / "resnet18-64.onnx"
        with open_engine(graph, provider="cpu", bank=published / "gasket.bank") as engine:
            for model in (fitted, lid, fitted):
                name = model.pictures.class_name
                engine.load_bank(published / f"{name}.bank")
                found = engine.infer(seven_frames)
                assert engine.manifest.class_name == name
                assert engine.manifest.threshold == model.threshold
                expected = [output.numpy() for output in model.detector.predict(frames)]
                outputs = [found.image_score, found.anomaly_map, found.influence_map]
                assert largest_difference(expected, outputs) < 1e-3

    def test_an_engine_without_its_graphs_bank(self, published: Path, exported: Path) -> None:
        with pytest.raises(ConfigurationError, match="holds no memory bank: give one product's"):
            open_engine(published / "resnet18-64.onnx")
        with pytest.raises(ConfigurationError, match="holds its own memory bank"):
            open_engine(exported, bank=published / "lid.bank")

    @pytest.mark.parametrize(("size", "name"), [
        ((256, 256), "resnet18-256.onnx"), ((256, 320), "resnet18-256x320.onnx"),
    ])  # fmt: skip
    def test_names(self, size: tuple[int, int], name: str) -> None:
        assert graph_path(Path(), settings_with(image_size=size)) == Path(name)

    def test_a_backbone_from_the_hub_has_a_name_for_a_file(self) -> None:
        settings_ = FitSettings(backbone="hf-hub:timm/resnet18.a1_in1k")
        assert graph_path(Path(), settings_).name == "hf-hub-timm-resnet18.a1_in1k-256.onnx"


class TestGraphThatIsThere:
    def test_it_is_kept_to_the_byte(
        self, models: Path, lid: FittedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*args: object) -> None:
            pytest.fail("the graph was written again")

        monkeypatch.setattr(form, "to_onnx", refuse)
        before, bank = contents(models), load_bank(models / "lid.bank")
        export_model(lid, EXTERNAL, models, SilentSteps())
        after, again = contents(models), load_bank(models / "lid.bank")
        assert changed(before, after) <= {"lid.bank", "lid.safetensors"}
        # Their metadata has no order of its own, so the same bank may be other bytes.
        assert again.manifest == bank.manifest
        for name, array in bank.tensors.items():
            assert np.array_equal(again.tensors[name], array)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"score": "distance"}, "score: noise-response, not distance"),
            ({"neighbors": 5}, "neighbors: 9, not 5"),
        ],
    )
    def test_another_kind_is_refused_before_the_fit_and_after(
        self, models: Path, lid: FittedModel, changes: dict[str, Any], says: str
    ) -> None:
        before, other = contents(models), settings_with(bank="external", **changes)
        for act in (
            lambda: check_target(models, "lid", other),
            lambda: export_model(lid, other, models, SilentSteps()),
        ):
            with pytest.raises(ConfigurationError) as error:
                act()
            assert says in str(error.value) and "Give another --out" in str(error.value)
        assert contents(models) == before

    def test_other_weights_are_found_after_the_fit(self, models: Path, lid: FittedModel) -> None:
        graph = load_any_manifest(models / "resnet18-64.json")
        assert isinstance(graph, GraphManifest)
        backbone = graph.backbone.model_copy(update={"weights_sha256": "a" * 64})
        graph.model_copy(update={"backbone": backbone}).save(models / "resnet18-64.json")
        before = contents(models)
        with pytest.raises(ConfigurationError, match=r"weights_sha256: aaa"):
            export_model(lid, EXTERNAL, models, SilentSteps())
        assert contents(models) == before

    def test_a_damaged_one_is_not_built_upon(self, models: Path, lid: FittedModel) -> None:
        path = models / "resnet18-64.onnx"
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
        with pytest.raises(ModelError, match=r"is not the file that resnet18-64\.json was written"):
            export_model(lid, EXTERNAL, models, SilentSteps())

    def test_one_without_its_manifest(self, models: Path, lid: FittedModel) -> None:
        (models / "resnet18-64.json").unlink()
        with pytest.raises(ModelError, match="Remove both"):
            export_model(lid, EXTERNAL, models, SilentSteps())

    def test_a_manifest_alone_gets_its_graph_back(self, models: Path, lid: FittedModel) -> None:
        before = contents(models)
        (models / "resnet18-64.onnx").unlink()
        export_model(lid, EXTERNAL, models, SilentSteps())
        assert changed(before, contents(models)) <= {"lid.bank", "lid.safetensors"}

    def test_data_of_a_graph_that_is_gone(self, models: Path, lid: FittedModel) -> None:
        (models / "resnet18-64.onnx").rename(models / "resnet18-64.onnx.data")
        with pytest.raises(ModelError, match=r"resnet18-64\.onnx\.data is there without"):
            export_model(lid, EXTERNAL, models, SilentSteps())

    def test_a_class_that_is_called_like_it(self, models: Path, lid: FittedModel) -> None:
        named = replace(lid, pictures=replace(lid.pictures, class_name="resnet18-64"))
        before = contents(models)
        with pytest.raises(ConfigurationError, match="the class resnet18-64 would replace it"):
            export_model(named, QUICK, models, SilentSteps())
        assert contents(models) == before

    def test_a_whole_model_in_its_place(
        self, exported: Path, lid: FittedModel, tmp_path: Path
    ) -> None:
        manifest_path(tmp_path / "resnet18-64.onnx").write_bytes(
            manifest_path(exported).read_bytes()
        )
        with pytest.raises(ConfigurationError, match="belongs to the class gasket"):
            check_target(tmp_path, "lid", EXTERNAL)

    @pytest.mark.parametrize("step", ["verify_parity", "save_bank", "save_state", "open_engine"])
    def test_a_failure_leaves_the_old_files(
        self, models: Path, lid: FittedModel, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

        before = contents(models)
        module = verify if step == "verify_parity" else external_files
        monkeypatch.setattr(module, step, fail)
        with pytest.raises(KeyboardInterrupt):
            export_model(lid, EXTERNAL, models, SilentSteps())
        assert contents(models) == before


class TestParity:
    def test_a_bank_of_another_product_is_noticed(
        self, published: Path, fitted: FittedModel, seven_frames: Frame
    ) -> None:
        graph, tensors = published / "resnet18-64.onnx", load_bank(published / "lid.bank").tensors
        with pytest.raises(ParityError, match="image_score, relative: differs by"):
            verify_parity(graph, fitted.detector, seven_frames, bank=tensors)

    def test_inputs_that_are_not_there_or_not_given_are_named(
        self, published: Path, exported: Path, fitted: FittedModel, seven_frames: Frame
    ) -> None:
        tensors = bank_tensors(fitted.detector.head)
        with pytest.raises(ParityError, match=r"inputs and outputs are \['frames', 'image_score'"):
            verify_parity(exported, fitted.detector, seven_frames, bank=tensors)
        with pytest.raises(ParityError, match=r"'memory_bank', 'bank_squares'.* expected"):
            verify_parity(published / "resnet18-64.onnx", fitted.detector, seven_frames)

    def test_rows_of_a_fixed_number_are_named(
        self, models: Path, fitted: FittedModel, seven_frames: Frame
    ) -> None:
        path = models / "resnet18-64.onnx"
        model = onnx.load(str(path))
        model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 320
        onnx.save(model, str(path))
        with pytest.raises(ParityError, match=r"memory_bank is \('tensor\(float\)', \[320, 384\]"):
            verify_parity(
                path, fitted.detector, seven_frames, bank=bank_tensors(fitted.detector.head)
            )


class TestLeftovers:
    def test_files_of_the_other_kind_are_listed(self, models: Path, exported: Path) -> None:
        assert leftovers(models / "gasket.bank") == []
        for path in exported.parent.iterdir():
            (models / path.name).write_bytes(path.read_bytes())
        assert leftovers(models / "gasket.bank") == [models / "gasket.onnx", models / "gasket.json"]
        assert leftovers(models / "gasket.onnx") == [models / "gasket.bank"]
        assert leftovers(models / "lid.bank") == []

    def test_the_graph_is_none_for_a_class_of_its_name(self, models: Path) -> None:
        (models / "resnet18-64.bank").write_bytes((models / "lid.bank").read_bytes())
        assert leftovers(models / "resnet18-64.bank") == []


def test_a_bank_of_another_backbone_is_refused_by_name(models: Path) -> None:
    graph = load_any_manifest(models / "resnet18-64.json")
    assert isinstance(graph, GraphManifest)
    bank = load_bank(models / "lid.bank")
    described = bank.manifest.backbone.model_copy(update={"name": "resnet34"})
    other = bank.with_manifest(bank.manifest.model_copy(update={"backbone": described}))
    save_bank(other, models / "other.bank")
    with (
        open_engine(models / "resnet18-64.onnx", bank=models / "lid.bank") as engine,
        pytest.raises(ManifestError, match=r"other\.bank is not for .*backbone: resnet34, not res"),
    ):
        engine.load_bank(models / "other.bank")
