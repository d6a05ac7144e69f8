"""Graphs made for servers against the exported one: the same numbers, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from patchline.export.external_bank import ExternalDetector, bank_tensors, graph_inputs
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import to_onnx
from patchline.export.precision.half import half_detector
from patchline.export.serving import split_graph as split_module
from patchline.export.serving.float_frames import with_float_frames
from patchline.export.serving.found_model import FoundModel
from patchline.export.serving.split_graph import (
    EMBEDDINGS,
    SplitGraph,
    digest_of,
    split_graph,
    with_constants,
)
from patchline.export.serving.verify import Arrays, check_equal, run, sample_frames
from patchline.runtime.bank import Bank, load_bank
from patchline.runtime.contract import FRAMES, OUTPUTS
from patchline.runtime.engine.plans.build_log import shared_log
from patchline.runtime.errors import ModelError, ParityError

from ..drawn import CLASS_NAME
from ..variants import variant_of
from .conftest import OTHER

GRAPH = "resnet18-64.onnx"


@pytest.fixture(scope="module")
def graph(external_export: Path) -> onnx.ModelProto:
    return onnx.load(external_export / GRAPH)


@pytest.fixture(scope="module")
def bank(external_export: Path) -> Bank:
    return load_bank(external_export / f"{CLASS_NAME}.bank")


def in_parts(parts: SplitGraph, frames: np.ndarray) -> Arrays:
    return run(parts.head, run(parts.backbone, {FRAMES: frames}))


def split(graph: onnx.ModelProto, bank: Bank) -> SplitGraph:
    return split_graph(graph, bank.manifest.required_bank().dimension, bank.tensors)


class TestSplit:
    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_the_parts_give_the_very_numbers_of_the_whole(
        self, graph: onnx.ModelProto, bank: Bank, count: int
    ) -> None:
        frames = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3)).astype(np.uint8)
        expected = run(graph, {FRAMES: frames, **bank.tensors})
        found = in_parts(split(graph, bank), frames)
        for name in OUTPUTS:
            np.testing.assert_array_equal(found[name], expected[name])

    def test_a_frame_is_judged_alike_in_any_company(
        self, graph: onnx.ModelProto, bank: Bank
    ) -> None:
        parts, frames = split(graph, bank), sample_frames(bank.manifest.model_size)
        together = in_parts(parts, frames)["image_score"]
        alone = [in_parts(parts, frames[i : i + 1])["image_score"][0] for i in range(2)]
        np.testing.assert_allclose(together, alone, rtol=1e-5)

    def test_classes_share_the_backbone_and_not_the_head(
        self, graph: onnx.ModelProto, bank: Bank, external_export: Path
    ) -> None:
        other = split(graph, load_bank(external_export / f"{OTHER}.bank"))
        own = split(graph, bank)
        assert digest_of(own.backbone) == digest_of(other.backbone)
        assert digest_of(own.head) != digest_of(other.head)
        frames = sample_frames(bank.manifest.model_size)
        assert (
            in_parts(own, frames)["image_score"] != in_parts(other, frames)["image_score"]
        ).all()

    def test_the_bank_is_in_the_head_alone_and_the_weights_in_the_backbone(
        self, graph: onnx.ModelProto, bank: Bank
    ) -> None:
        parts = split(graph, bank)
        assert [item.name for item in parts.backbone.graph.input] == [FRAMES]
        assert [item.name for item in parts.backbone.graph.output] == [EMBEDDINGS]
        assert [item.name for item in parts.head.graph.input] == [EMBEDDINGS]
        assert [item.name for item in parts.head.graph.output] == list(OUTPUTS)
        operations = [
            {node.op_type for node in part.graph.node} for part in (parts.backbone, parts.head)
        ]
        assert "Conv" in operations[0] and "TopK" not in operations[0]
        assert "TopK" in operations[1] and "Conv" not in operations[1]
        for part in (parts.backbone, parts.head):
            onnx.checker.check_model(part, full_check=True)

    def test_the_graph_itself_is_not_touched(self, graph: onnx.ModelProto, bank: Bank) -> None:
        before = graph.SerializeToString(deterministic=True)
        split(graph, bank)
        assert graph.SerializeToString(deterministic=True) == before

    def test_half_precision_and_the_score_with_four_inputs(self, fitted: FittedModel) -> None:
        detector = half_detector(
            variant_of(fitted, fitted.detector.embedder, "patchcore").detector, bank="fp16"
        )
        graph = to_onnx(
            ExternalDetector(detector), detector.embedder.size, graph_inputs(detector.head)
        )
        tensors = bank_tensors(detector.head)
        parts = split_graph(graph, detector.embedder.dimension, tensors)
        frames = sample_frames(detector.embedder.size)
        expected = run(graph, {FRAMES: frames, **tensors})
        check_equal(in_parts(parts, frames), expected, OUTPUTS)

    def test_another_dimension_is_refused(self, graph: onnx.ModelProto, bank: Bank) -> None:
        with pytest.raises(ModelError, match=r"no patch embeddings \[B, h, w, 77\].*Export it"):
            split_graph(graph, 77, bank.tensors)

    def test_pixels_that_go_round_the_embeddings_are_refused(
        self, graph: onnx.ModelProto, bank: Bank
    ) -> None:
        mended = onnx.ModelProto()
        mended.CopyFrom(graph)
        for node in mended.graph.node:
            for i, name in enumerate(node.output):
                if name == "image_score":
                    node.output[i] = "inner_score"
        cast = helper.make_node("Cast", [FRAMES], ["pixels"], to=onnx.TensorProto.FLOAT)
        top = helper.make_node("ReduceMax", ["pixels"], ["top"], keepdims=0)
        add = helper.make_node("Add", ["inner_score", "top"], ["image_score"])
        mended.graph.node.extend([cast, top, add])
        with pytest.raises(ModelError, match="no backbone can be shared"):
            split(mended, bank)

    def test_a_bank_of_other_inputs_is_refused(self, graph: onnx.ModelProto) -> None:
        with pytest.raises(ModelError, match="has no input another"):
            with_constants(graph, {"another": np.zeros(3)})

    def test_a_head_past_two_gibibytes_is_refused(
        self, graph: onnx.ModelProto, bank: Bank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts = split(graph, bank)
        monkeypatch.setattr(split_module, "LARGEST_BYTES", 1 << 18)
        with pytest.raises(ModelError, match=r"GiB with its bank inside.*--coreset-ratio"):
            digest_of(parts.head)


class TestFloatFrames:
    @pytest.mark.parametrize("count", [1, 3])
    def test_planes_of_floats_give_what_bytes_give(self, whole: FoundModel, count: int) -> None:
        exported, size = onnx.load(whole.onnx), whole.manifest.model_size
        frames = np.random.default_rng(7).integers(0, 256, (count, 64, 64, 3)).astype(np.uint8)
        expected = run(exported, {FRAMES: frames})
        planes = np.stack([frame.transpose(2, 0, 1) for frame in frames]).astype(np.float32)
        found = run(with_float_frames(exported, size), {FRAMES: planes})
        assert found["image_score"].shape == (count, 1)
        for name in OUTPUTS:
            np.testing.assert_array_equal(found[name].reshape(expected[name].shape), expected[name])

    def test_a_graph_with_a_bank_as_input_is_refused(
        self, graph: onnx.ModelProto, bank: Bank
    ) -> None:
        with pytest.raises(ModelError, match=r"has inputs .*memory_bank"):
            with_float_frames(graph, bank.manifest.model_size)

    def test_tensorrt_builds_it(self, whole: FoundModel) -> None:
        trt = pytest.importorskip("tensorrt_rtx_bindings")
        made = with_float_frames(onnx.load(whole.onnx), whole.manifest.model_size)
        log = shared_log(trt)
        builder = trt.Builder(log)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, log)
        assert parser.parse(made.SerializeToString()), parser.get_error(0).desc()
        assert network.get_input(0).dtype == trt.float32
        assert tuple(network.get_input(0).shape) == (-1, 3, 64, 64)
        outputs = [network.get_output(i) for i in range(network.num_outputs)]
        # nvinfer gives an output without dims but for the batch no memory.
        assert {item.name: len(item.shape) for item in outputs} == {
            "image_score": 2, "anomaly_map": 3, "influence_map": 3,
        }  # fmt: skip
        config, profile = builder.create_builder_config(), builder.create_optimization_profile()
        profile.set_shape(FRAMES, (1, 3, 64, 64), (1, 3, 64, 64), (4, 3, 64, 64))
        config.add_optimization_profile(profile)
        assert builder.build_serialized_network(network, config) is not None


class TestVerification:
    def test_a_difference_is_named(self) -> None:
        one = {"image_score": np.array([1.0, 2.0], np.float32)}
        check_equal(one, {"image_score": np.array([1.0, 2.00001], np.float32)}, ["image_score"])
        with pytest.raises(ParityError, match=r"another image_score: it differs by 0\.01"):
            check_equal(one, {"image_score": np.array([1.0, 2.01], np.float32)}, ["image_score"])

    def test_no_number_is_a_difference(self) -> None:
        one = {"image_score": np.array([np.nan], np.float32)}
        with pytest.raises(ParityError, match="differs by nan"):
            check_equal(one, {"image_score": np.array([1.0], np.float32)}, ["image_score"])

    def test_a_graph_that_cannot_be_run_is_an_error_of_ours(self, graph: onnx.ModelProto) -> None:
        with pytest.raises(ModelError, match="cannot be run"):
            run(graph, {FRAMES: np.zeros((1, 64, 64, 3), np.uint8)})
