"""The exported files of a distilled model: what is in them, that they compute what was fitted."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from patchline.export.distillation import exporter
from patchline.export.distillation.convert import ConvertedDistilled, convert_distilled
from patchline.export.distillation.describe import describe_distilled
from patchline.export.distillation.detector import DistilledDetector
from patchline.export.distillation.exporter import expected_of, export_distilled
from patchline.export.distillation.fit import DistilledModel
from patchline.export.distillation.state import load_distilled_state, trained_tensors
from patchline.export.parity import verify_against
from patchline.export.precision.convert import let_out
from patchline.export.weights import digest_of_tensors
from patchline.runtime import contract
from patchline.runtime.contract import external_data_path, load_manifest, manifest_path
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ConfigurationError, GateError, ParityError
from patchline.runtime.files import sha256_of_file
from patchline.runtime.graph import graph_of
from patchline.runtime.preprocess import Frame
from patchline.runtime.progress import SilentSteps
from tests.runtime.tiny_model import make_manifest

from ..drawn import CLASS_NAME
from .distilled import HALF, QUICK, settings_with


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestFiles:
    def test_there_are_three_and_nothing_is_left_over(self, published: Path) -> None:
        names = sorted(path.name for path in published.parent.iterdir())
        assert names == ["gasket.json", "gasket.onnx", "gasket.safetensors"]

    def test_the_manifest_inside_is_the_one_beside_but_for_the_file(self, published: Path) -> None:
        props = {p.key: p.value for p in onnx.load(str(published)).metadata_props}
        beside = json.loads(manifest_path(published).read_text())
        inside = json.loads(props[contract.METADATA_KEY])
        assert beside.pop("onnx") == {
            "file": "gasket.onnx",
            "sha256": hashlib.sha256(published.read_bytes()).hexdigest(),
        }
        assert inside.pop("onnx") is None
        assert inside == beside

    def test_the_manifest_says_how_it_was_trained(
        self, published: Path, distilled: DistilledModel
    ) -> None:
        manifest = load_manifest(manifest_path(published))
        assert (manifest.class_name, manifest.method) == (CLASS_NAME, "reverse-distillation")
        assert (manifest.score, manifest.precision) == ("cosine", "fp32")
        assert manifest.memory_bank is None and manifest.distance_statistics is None
        training = manifest.distillation
        assert training is not None and training.noise is None
        assert (training.epochs, training.batch_size, training.seed) == (1, 4, 0)
        assert training.lr == 0.0025 and training.width_per_group == 64
        assert training.loss == distilled.result.loss
        assert training.grids == ((16, 16), (8, 8), (4, 4))
        tensors = trained_tensors(distilled.detector.model)
        assert training.weights_sha256 == digest_of_tensors(tensors)
        assert manifest.backbone.layers == ("layer1", "layer2", "layer3")
        assert manifest.backbone.weights_source == "random"
        assert manifest.training_set == distilled.training_set
        assert manifest.threshold == distilled.threshold
        assert manifest.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
        assert manifest.parity is not None and manifest.parity.frames == 8
        assert manifest.parity.tied_patches == 0

    def test_the_noise_is_written_down(self, distilled: DistilledModel) -> None:
        summary = type("Summary", (), {})()
        summary.smallest, summary.largest, summary.warmup_epochs = 0.02, 0.2, 7
        summary.bank_rows = (30, 20, 10)
        noisy = replace(distilled, result=replace(distilled.result, noise=summary))
        training = describe_distilled(noisy, QUICK, None).distillation
        assert training is not None and training.noise is not None
        assert training.noise.model_dump() == vars(summary)

    def test_the_state_holds_the_same_manifest_and_the_student(
        self, published: Path, distilled: DistilledModel
    ) -> None:
        state = load_distilled_state(published.with_suffix(".safetensors"))
        assert state.manifest == load_manifest(manifest_path(published))
        assert state.pictures == distilled.picture_digests
        assert state.tensors.keys() == trained_tensors(distilled.detector.model).keys()


@pytest.fixture(scope="module")
def opened(published: Path) -> onnx.ModelProto:
    return onnx.load(str(published))


class TestGraph:
    def test_onnx_finds_it_valid(self, opened: onnx.ModelProto) -> None:
        onnx.checker.check_model(opened, full_check=True)
        assert [(item.domain, item.version) for item in opened.opset_import] == [("", 18)]

    def test_inputs_and_outputs_are_the_contracts(self, opened: onnx.ModelProto) -> None:
        def described(item: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
            tensor = item.type.tensor_type
            axes = [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
            return item.name, tensor.elem_type, axes

        assert [described(item) for item in opened.graph.input] == [
            ("frames", TensorProto.UINT8, ["batch", 64, 64, 3])
        ]
        assert [described(item) for item in opened.graph.output] == [
            ("image_score", TensorProto.FLOAT, ["batch"]),
            ("anomaly_map", TensorProto.FLOAT, ["batch", 64, 64]),
            ("influence_map", TensorProto.FLOAT, ["batch", 64, 64]),
        ]

    def test_the_cast_of_the_frames_comes_first(self, opened: onnx.ModelProto) -> None:
        (first,) = [node for node in opened.graph.node if "frames" in node.input]
        assert first.op_type == "Cast"

    def test_the_student_is_mirrored_by_transposed_convolutions(
        self, opened: onnx.ModelProto
    ) -> None:
        kinds = [node.op_type for node in opened.graph.node]
        assert kinds.count("ConvTranspose") == 6  # in the block and in its shortcut, per scale
        assert "Resize" not in kinds and "BatchNormalization" not in kinds

    def test_it_names_no_path_of_this_machine(self, opened: onnx.ModelProto) -> None:
        model = copy.deepcopy(opened)
        del model.graph.initializer[:]
        text = str(model)
        assert "/" not in text.replace("://", "") or str(Path.cwd()) not in text


class TestValues:
    def test_the_file_computes_what_was_fitted(
        self, published: Path, distilled: DistilledModel, seven_frames: Frame
    ) -> None:
        expected = distilled.detector.predict(torch.from_numpy(seven_frames))
        with open_engine(published, provider="cpu") as engine:
            found = engine.infer(seven_frames)
            singles = [engine.infer(frame[None]) for frame in seven_frames]
        for name, tensor in zip(contract.OUTPUTS, expected, strict=True):
            np.testing.assert_allclose(getattr(found, name), tensor, rtol=1e-4, atol=1e-5)
            single = np.concatenate([getattr(one, name) for one in singles])
            np.testing.assert_allclose(getattr(found, name), single, rtol=1e-4, atol=1e-5)

    def test_another_student_is_found_out(
        self, published: Path, distilled: DistilledModel, seven_frames: Frame
    ) -> None:
        model = copy.deepcopy(distilled.detector.model)
        with torch.no_grad():
            for parameter in model.student.parameters():
                parameter.mul_(1.05)
        with pytest.raises(ParityError, match=r"does not compute what was fitted\. image_score"):
            verify_against(published, expected_of(DistilledDetector(model)), seven_frames)


class TestAllOrNothing:
    def test_nothing_is_replaced_where_the_file_is_wrong(
        self, own_copy: Path, distilled: DistilledModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*given: Any) -> None:
            raise ParityError("wrong")

        before = contents(own_copy.parent)
        graph = onnx.load(str(own_copy))
        monkeypatch.setattr(exporter, "to_onnx", lambda *given: graph)
        monkeypatch.setattr(exporter, "verify_against", refuse)
        with pytest.raises(ParityError, match="wrong"):
            export_distilled(distilled, QUICK, own_copy.parent, SilentSteps())
        assert contents(own_copy.parent) == before

    def test_the_same_model_gives_the_same_file_and_removes_older_data(
        self, published: Path, own_copy: Path, distilled: DistilledModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        external_data_path(own_copy).write_bytes(b"of an older, larger model")
        graph = onnx.load(str(own_copy))
        monkeypatch.setattr(exporter, "to_onnx", lambda *given: graph)
        again = export_distilled(distilled, QUICK, own_copy.parent, SilentSteps())
        assert not external_data_path(again).exists()
        assert sha256_of_file(again) == sha256_of_file(published)

    def test_a_graph_of_other_classes_is_not_overwritten(
        self, own_copy: Path, distilled: DistilledModel
    ) -> None:
        manifest_path(own_copy).write_text(graph_of(make_manifest()).to_json())
        with pytest.raises(ConfigurationError, match="is the graph of classes with an external"):
            export_distilled(distilled, QUICK, own_copy.parent, SilentSteps())


class TestPrecision:
    def test_half_precision_passes_the_gate(
        self, converted: ConvertedDistilled, distilled: DistilledModel
    ) -> None:
        found = converted.gate
        assert found.images == len(distilled.held_out) == 2 and found.labelled_images == 4
        assert converted.pairs.paths == distilled.held_out  # never one that was trained on
        assert found.problems == () and found.map_error < 0.02
        assert converted.manifest.precision == "fp16"
        assert converted.manifest.normal_scores.carried_over
        assert converted.float32.precision == "fp32"

    def test_its_files_say_so_and_its_state_is_float32(
        self, half_file: Path, distilled: DistilledModel
    ) -> None:
        manifest = load_manifest(manifest_path(half_file))
        assert manifest.precision == "fp16" and manifest.conversion is not None
        assert manifest.parity is not None
        assert manifest.parity.image_score_max_relative_error < 1e-2
        state = load_distilled_state(half_file.with_suffix(".safetensors"))
        assert state.manifest.precision == "fp32" and state.manifest.conversion is None
        assert state.manifest.threshold == distilled.threshold
        assert {tensor.dtype for tensor in state.tensors.values()} >= {torch.float32}
        assert torch.float16 not in {tensor.dtype for tensor in state.tensors.values()}

    def test_the_file_is_half_as_large(self, half_file: Path, published: Path) -> None:
        assert half_file.stat().st_size < 0.55 * published.stat().st_size

    def test_every_weight_of_the_networks_is_half(self, half_file: Path) -> None:
        model = onnx.load(str(half_file))
        kinds = {
            tensor.data_type
            for node in model.graph.node
            if node.op_type in ("Conv", "ConvTranspose")
            for tensor in model.graph.initializer
            if tensor.name == node.input[1]
        }
        assert kinds == {TensorProto.FLOAT16}

    def test_int8_is_refused(self, distilled: DistilledModel) -> None:
        float32 = describe_distilled(distilled, QUICK, None)
        with pytest.raises(ConfigurationError, match=r"'int8', and .* in fp32 or fp16$"):
            convert_distilled(distilled, float32, settings_with(precision="int8"), SilentSteps())

    def test_a_model_in_another_precision_is_not_taken(
        self, distilled: DistilledModel, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match="asked for fp16, given a model in fp32"):
            export_distilled(distilled, HALF, tmp_path, SilentSteps())

    def test_the_gate_refuses_and_force_writes_it_down(
        self, distilled: DistilledModel, converted: ConvertedDistilled,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        problem = {"problems": ("too far",)}
        gate = converted.gate.model_copy(update=problem)
        found = replace(converted, gate=gate)
        with pytest.raises(GateError, match=r"gasket in fp16 judges otherwise.*too far.*fp32"):
            let_out(found, is_forced=False)
        forced = let_out(found, is_forced=True)
        assert forced.gate.is_forced and forced.detector is converted.detector
        assert forced.manifest.conversion is not None
        assert forced.manifest.conversion.gate == forced.gate
