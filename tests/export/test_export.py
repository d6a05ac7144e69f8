"""The exported files: what is in them, that they compute what was fitted, and all or nothing."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from patchline.export import exporter
from patchline.export.detector import Detector
from patchline.export.exporter import export_model
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx, to_onnx
from patchline.export.parity import Tolerances, verify_parity
from patchline.export.precision import form, verify
from patchline.export.scores import SCORES
from patchline.export.state import load_state
from patchline.runtime import contract
from patchline.runtime.contract import load_manifest, manifest_path, parse_manifest
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ModelError, ParityError, WriteError
from patchline.runtime.files import sha256_of_file
from patchline.runtime.preprocess import Frame
from patchline.runtime.progress import SilentSteps

from .conftest import ByScore
from .drawn import CLASS_NAME, QUICK, quick_fit, settings_with, write_class

BANK_ROWS = 307  # of 12 pictures of 64 patches each
PADDED_ROWS = 320


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path: Path, frames: Frame) -> list[np.ndarray]:
    outputs: list[np.ndarray] = session(path).run(list(contract.OUTPUTS), {contract.FRAMES: frames})
    return outputs


def attribute(node: onnx.NodeProto, name: str) -> Any:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}[name]


@pytest.fixture(scope="module")
def graph(exported: Path) -> onnx.GraphProto:
    return onnx.load(str(exported)).graph


class TestFiles:
    def test_there_are_three_and_nothing_is_left_over(self, exported: Path) -> None:
        assert sorted(path.name for path in exported.parent.iterdir()) == [
            "gasket.json",
            "gasket.onnx",
            "gasket.safetensors",
        ]

    def test_the_manifest_inside_is_the_one_beside_but_for_the_file(self, exported: Path) -> None:
        props = {p.key: p.value for p in onnx.load(str(exported)).metadata_props}
        beside = json.loads(manifest_path(exported).read_text())
        inside = json.loads(props[contract.METADATA_KEY])
        assert beside.pop("onnx") == {
            "file": "gasket.onnx",
            "sha256": hashlib.sha256(exported.read_bytes()).hexdigest(),
        }
        assert inside.pop("onnx") is None
        assert inside == beside
        assert set(props) == {contract.METADATA_KEY}

    def test_the_state_holds_the_same_manifest_and_the_bank(
        self, exported: Path, fitted: FittedModel
    ) -> None:
        state = load_state(exported.with_suffix(".safetensors"))
        assert state.manifest == load_manifest(manifest_path(exported))
        assert torch.equal(state.memory_bank, fitted.memory_bank)

    def test_the_manifest_says_what_was_fitted(self, exported: Path, fitted: FittedModel) -> None:
        manifest = load_manifest(manifest_path(exported))
        assert (manifest.class_name, manifest.method) == (CLASS_NAME, "patchcore-noising")
        assert (manifest.score, manifest.precision) == ("noise-response", "fp32")
        assert (manifest.model_size.height, manifest.model_size.width) == (64, 64)
        assert manifest.backbone.name == "resnet18"
        assert manifest.backbone.layers == ("layer2", "layer3")
        assert manifest.backbone.weights_source == "random"
        assert (manifest.memory_bank.rows, manifest.memory_bank.dimension) == (BANK_ROWS, 384)
        assert (manifest.memory_bank.neighbors, manifest.memory_bank.coreset_ratio) == (9, 0.4)
        assert manifest.training_set.images == 12
        assert manifest.threshold == fitted.threshold
        assert manifest.distance_statistics == fitted.statistics
        assert len(manifest.normal_scores.scores) == 12
        assert manifest.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
        assert manifest.preprocessing.std == pytest.approx((0.229, 0.224, 0.225))
        assert manifest.parity is not None and manifest.parity.frames == 8
        assert {"patchline", "torch", "timm", "onnx", "opset"} <= manifest.versions.keys()

    def test_the_same_fit_gives_the_same_digest(
        self, exported: Path, fitted: FittedModel, tmp_path: Path
    ) -> None:
        again = export_model(fitted, QUICK, tmp_path, SilentSteps())
        assert sha256_of_file(again) == sha256_of_file(exported)


class TestGraph:
    def test_onnx_finds_it_valid(self, exported: Path) -> None:
        model = onnx.load(str(exported))
        onnx.checker.check_model(model, full_check=True)
        assert [(item.domain, item.version) for item in model.opset_import] == [("", 18)]
        assert not model.functions

    def test_inputs_and_outputs_are_the_contracts(self, graph: onnx.GraphProto) -> None:
        def described(item: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
            tensor = item.type.tensor_type
            axes = [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
            return item.name, tensor.elem_type, axes

        assert [described(item) for item in graph.input] == [
            ("frames", TensorProto.UINT8, ["batch", 64, 64, 3])
        ]
        assert [described(item) for item in graph.output] == [
            ("image_score", TensorProto.FLOAT, ["batch"]),
            ("anomaly_map", TensorProto.FLOAT, ["batch", 64, 64]),
            ("influence_map", TensorProto.FLOAT, ["batch", 64, 64]),
        ]

    def test_frames_are_cast_before_anything_else(self, graph: onnx.GraphProto) -> None:
        readers = [node for node in graph.node if contract.FRAMES in node.input]
        computing = [node for node in readers if node.op_type != "Shape"]
        assert [node.op_type for node in computing] == ["Cast"]
        assert attribute(computing[0], "to") == TensorProto.FLOAT

    @pytest.mark.parametrize("score", sorted(SCORES))
    def test_the_bank_is_held_once(self, by_score: ByScore, score: str) -> None:
        graph = onnx.load(str(by_score(score)[1])).graph
        constants = [a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute]
        sizes = [int(np.prod(t.dims)) for t in [*graph.initializer, *constants]]
        assert sizes.count(PADDED_ROWS * 384) == 1
        assert BANK_ROWS * 384 not in sizes

    def test_the_search_is_one_gemm_over_the_bank(self, graph: onnx.GraphProto) -> None:
        gemms = [node for node in graph.node if node.op_type == "Gemm"]
        assert len(gemms) == 1
        assert attribute(gemms[0], "alpha") == -2.0
        bank = next(
            item.name for item in graph.initializer if list(item.dims) == [PADDED_ROWS, 384]
        )
        factor = gemms[0].input[1]
        made_by = [node for node in graph.node if factor in node.output]
        assert factor == bank or [(n.op_type, list(n.input)) for n in made_by] == [
            ("Transpose", [bank])
        ]

    def test_the_neighbours_come_from_a_top_k_of_two_levels(self, graph: onnx.GraphProto) -> None:
        values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                values[node.output[0]] = numpy_helper.to_array(attribute(node, "value"))
        tops = [node for node in graph.node if node.op_type == "TopK"]
        assert [int(values[node.input[1]].item()) for node in tops] == [9, 9]
        assert [attribute(node, "largest") for node in tops] == [0, 0]
        assert Counter(node.op_type for node in graph.node)["ReduceMin"] == 1

    def test_no_trace_of_this_machine_is_in_the_files(
        self, exported: Path, drawn_data: Path
    ) -> None:
        root = Path(__file__).parents[2]
        traces = [str(root), str(drawn_data), "site-packages", "dist-packages", ".py", "/tmp/"]
        for name, data in contents(exported.parent).items():
            assert [trace for trace in traces if trace.encode() in data] == [], name

    def test_no_doc_strings_are_in_the_file(self, exported: Path) -> None:
        model = onnx.load(str(exported))
        graph = model.graph
        items = [model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer]
        assert {item.doc_string for item in [*items, *graph.value_info]} == {""}
        assert not any(node.metadata_props for node in graph.node)


class TestParity:
    @pytest.mark.parametrize("score", sorted(SCORES))
    @pytest.mark.parametrize("batch", [1, 2, 7])
    def test_onnx_runtime_computes_what_torch_does(
        self, by_score: ByScore, seven_frames: Frame, score: str, batch: int
    ) -> None:
        detector, path = by_score(score)
        frames = seven_frames[-batch:]
        expected = [output.numpy() for output in detector.predict(torch.from_numpy(frames))]
        found = run(path, frames)
        for name, a, b in zip(contract.OUTPUTS, expected, found, strict=True):
            assert b.dtype == np.float32 and b.shape == a.shape, name
        # The maps really differ from pixel to pixel, so that an agreement means something.
        assert np.ptp(expected[1]) > 0.1 * expected[1].max()
        for a, b in zip(expected[:2], found[:2], strict=True):
            assert np.abs(a - b).max() < 1e-4 * np.abs(a).max()
        assert np.abs(expected[2] - found[2]).max() < 1e-2

    @pytest.mark.parametrize("score", sorted(SCORES))
    def test_a_frames_result_does_not_depend_on_its_batch(
        self, by_score: ByScore, seven_frames: Frame, score: str
    ) -> None:
        path = by_score(score)[1]
        together = run(path, seven_frames)
        alone = [run(path, seven_frames[i : i + 1]) for i in range(len(seven_frames))]
        for index in (0, 1):
            single = np.concatenate([outputs[index] for outputs in alone])
            assert np.abs(together[index] - single).max() < 1e-4 * np.abs(single).max()

    def test_a_true_file_passes_and_says_how_near_it_is(
        self, fitted: FittedModel, exported: Path, seven_frames: Frame
    ) -> None:
        parity = verify_parity(exported, fitted.detector, seven_frames)
        assert parity.frames == 7
        assert 0 <= parity.image_score_max_relative_error < 1e-4
        assert 0 <= parity.anomaly_map_max_relative_error < 1e-4
        assert 0 <= parity.batch_max_relative_error < 1e-4

    def test_differences_are_measured_against_the_tolerances(
        self, fitted: FittedModel, exported: Path, seven_frames: Frame
    ) -> None:
        impossible = Tolerances(image_score=-1, anomaly_map=-1, influence_map=-1, batch=-1)
        with pytest.raises(ParityError) as caught:
            verify_parity(exported, fitted.detector, seven_frames, impossible)
        assert str(caught.value).count("differs by") == 4

    def test_a_changed_weight_is_noticed_in_every_output(
        self, fitted: FittedModel, model: Path, seven_frames: Frame
    ) -> None:
        change_initializer(model, "head.search.bank", lambda values: values + 0.05)
        with pytest.raises(ParityError) as caught:
            verify_parity(model, fitted.detector, seven_frames)
        message = str(caught.value)
        assert message.startswith("gasket.onnx does not compute what was fitted.")
        for name in ("image_score, relative", "anomaly_map, relative", "influence_map"):
            assert f"{name}: differs by" in message

    def test_nan_is_a_difference(
        self, fitted: FittedModel, model: Path, seven_frames: Frame
    ) -> None:
        change_initializer(model, "head.to_anomaly_map.rows", lambda values: values * np.nan)
        with pytest.raises(ParityError, match=r"image_score.*anomaly_map.*batch"):
            verify_parity(model, fitted.detector, seven_frames)

    def test_a_fixed_batch_is_named_for_every_tensor(
        self, fitted: FittedModel, model: Path, seven_frames: Frame
    ) -> None:
        changed = onnx.load(str(model))
        for item in [*changed.graph.input, *changed.graph.output]:
            item.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(changed, str(model))
        with pytest.raises(ParityError) as caught:
            verify_parity(model, fitted.detector, seven_frames)
        for name in (contract.FRAMES, *contract.OUTPUTS):
            assert f"{name} is (" in str(caught.value)

    def test_other_names_are_listed(
        self, fitted: FittedModel, model: Path, seven_frames: Frame
    ) -> None:
        changed = onnx.load(str(model))
        rename_output(changed.graph, "image_score", "score")
        onnx.save(changed, str(model))
        with pytest.raises(ParityError, match=r"'score'.*expected \['frames', 'image_score'"):
            verify_parity(model, fitted.detector, seven_frames)

    def test_another_type_is_named(
        self, fitted: FittedModel, model: Path, seven_frames: Frame
    ) -> None:
        changed = onnx.load(str(model))
        rename_output(changed.graph, "image_score", "score")
        output = changed.graph.output[0]
        output.name, output.type.tensor_type.elem_type = "image_score", TensorProto.DOUBLE
        changed.graph.node.append(
            onnx.helper.make_node("Cast", ["score"], ["image_score"], to=TensorProto.DOUBLE)
        )
        onnx.save(changed, str(model))
        with pytest.raises(ParityError, match=r"image_score is \('tensor\(double\)'"):
            verify_parity(model, fitted.detector, seven_frames)

    def test_another_size_is_named(
        self, drawn_data: Path, exported: Path, seven_frames: Frame
    ) -> None:
        other = quick_fit(drawn_data, image_size=(64, 96), coreset_ratio=0.05)
        with pytest.raises(ParityError) as caught:
            verify_parity(exported, other.detector, seven_frames)
        assert "frames is (" in str(caught.value) and "anomaly_map is (" in str(caught.value)

    def test_a_file_that_is_no_model_is_an_error(
        self, fitted: FittedModel, model: Path, seven_frames: Frame
    ) -> None:
        model.write_bytes(model.read_bytes()[:1000])
        with pytest.raises(ModelError, match=r"ONNX Runtime cannot open the exported gasket.onnx"):
            verify_parity(model, fitted.detector, seven_frames)


def change_initializer(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    model = onnx.load(str(path))
    tensor = next(item for item in model.graph.initializer if item.name == name)
    values = change(numpy_helper.to_array(tensor)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, str(path))


def rename_output(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
    for item in graph.output:
        item.name = new if item.name == old else item.name


def raise_error(error: BaseException, *args: object, **kwargs: object) -> None:
    raise error


DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


class TestAllOrNothing:
    @pytest.mark.parametrize("step", ["to_onnx", "verify_parity", "save_state", "open_engine"])
    @pytest.mark.parametrize(
        ("error", "seen_as"),
        [
            (KeyboardInterrupt(), KeyboardInterrupt),
            (DISK_FULL, WriteError),
            (ParityError("differs"), ParityError),
        ],
        ids=["interrupt", "disk full", "parity"],
    )
    def test_a_failure_leaves_the_old_model_and_nothing_else(
        self,
        fitted: FittedModel,
        model: Path,
        monkeypatch: pytest.MonkeyPatch,
        step: str,
        error: BaseException,
        seen_as: type[BaseException],
    ) -> None:
        before = contents(model.parent)
        if step != "to_onnx":  # it takes seconds, and what it gives is not looked at
            graph = onnx.load(str(model))
            monkeypatch.setattr(form, "to_onnx", lambda detector, size: graph)
        module = {"to_onnx": form, "verify_parity": verify}.get(step, exporter)
        monkeypatch.setattr(module, step, functools.partial(raise_error, error))
        with pytest.raises(seen_as):
            export_model(fitted, QUICK, model.parent, SilentSteps())
        assert contents(model.parent) == before
        assert sorted(path.name for path in model.parent.iterdir()) == sorted(before)

    def test_a_disk_that_fills_up_while_the_graph_is_written(
        self, fitted: FittedModel, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = contents(model.parent)
        graph = onnx.load(str(model))

        def write_half(model: onnx.ModelProto, path: Path) -> None:
            path.write_bytes(b"half of a file")
            raise DISK_FULL

        monkeypatch.setattr(form, "to_onnx", lambda detector, size: graph)
        monkeypatch.setattr(exporter, "save_onnx", write_half)
        with pytest.raises(WriteError, match=r"the disk is full.*Nothing there was changed"):
            export_model(fitted, QUICK, model.parent, SilentSteps())
        assert contents(model.parent) == before

    def test_a_good_export_replaces_the_old_one(
        self, fitted: FittedModel, model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        graph = onnx.load(str(model))
        monkeypatch.setattr(form, "to_onnx", lambda detector, size: graph)
        for path in model.parent.iterdir():
            path.write_bytes(b"old")
        path = export_model(fitted, QUICK, model.parent, SilentSteps())
        with open_engine(path) as engine:
            assert engine.manifest.class_name == CLASS_NAME
        assert load_state(path.with_suffix(".safetensors")).manifest == engine.manifest


class TestExternalData:
    """Past 2 GiB the tensors lie beside the file; here the limit is small."""

    @pytest.fixture
    def split(
        self, fitted: FittedModel, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        graph = onnx.load(str(exported))
        small = functools.partial(save_onnx, external_data_bytes=100_000)
        monkeypatch.setattr(form, "to_onnx", lambda detector, size: graph)
        monkeypatch.setattr(exporter, "save_onnx", small)
        return export_model(fitted, QUICK, tmp_path / "split", SilentSteps())

    def test_the_tensors_lie_in_a_second_file(self, split: Path, exported: Path) -> None:
        data = contract.external_data_path(split)
        assert split.stat().st_size < 100_000
        assert split.stat().st_size + data.stat().st_size > 0.99 * exported.stat().st_size
        assert sorted(path.name for path in split.parent.iterdir()) == [
            "gasket.json",
            "gasket.onnx",
            "gasket.onnx.data",
            "gasket.safetensors",
        ]

    def test_it_computes_the_same(self, split: Path, exported: Path, seven_frames: Frame) -> None:
        with open_engine(split) as engine:
            found = engine.infer(seven_frames)
        assert np.array_equal(found.image_score, run(exported, seven_frames)[0])

    def test_the_digest_covers_both_files(self, split: Path) -> None:
        data = contract.external_data_path(split)
        data.write_bytes(data.read_bytes()[:-1] + b"\x01")
        with pytest.raises(ModelError, match=r"onnx.sha256"):
            open_engine(split)

    def test_a_later_model_in_one_file_is_not_mixed_up_with_the_old_data(
        self, split: Path, fitted: FittedModel, exported: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        graph = onnx.load(str(exported))
        monkeypatch.setattr(form, "to_onnx", lambda detector, size: graph)
        monkeypatch.setattr(exporter, "save_onnx", save_onnx)
        path = export_model(fitted, QUICK, split.parent, SilentSteps())
        assert not contract.external_data_path(path).exists()
        with open_engine(path) as engine:
            assert engine.manifest.class_name == CLASS_NAME


class TestOtherModels:
    def test_a_wide_backbone_is_pooled_to_1024_channels_of_frames_that_are_not_square(
        self, tmp_path: Path
    ) -> None:
        write_class(tmp_path, good=4)
        changes = {"backbone": "resnet50", "image_size": (64, 96)}
        fitted = quick_fit(tmp_path, **changes)
        assert fitted.memory_bank.shape == (int(4 * 8 * 12 * 0.4), 1024)
        path = export_model(fitted, settings_with(**changes), tmp_path / "models", SilentSteps())
        with open_engine(path) as engine:
            prediction = engine.infer(np.zeros((2, 64, 96, 3), np.uint8))
        assert prediction.anomaly_map.shape == prediction.influence_map.shape == (2, 64, 96)
        assert engine.manifest.memory_bank.dimension == 1024
        assert engine.manifest.parity is not None
        assert engine.manifest.parity.image_score_max_relative_error < 1e-3


class TestRefused:
    def test_a_module_that_cannot_be_traced_is_an_error_of_ours(self) -> None:
        class Peeking(torch.nn.Module):
            def forward(self, frames: torch.Tensor) -> torch.Tensor:
                if frames.sum() > 0:
                    return frames
                return frames + 1

        with pytest.raises(ModelError, match=r"the model cannot be exported to ONNX"):
            to_onnx(Peeking(), QUICK.model_size)

    def test_the_metadata_is_a_manifest(self, exported: Path) -> None:
        text = session(exported).get_modelmeta().custom_metadata_map[contract.METADATA_KEY]
        assert parse_manifest(text, "here").class_name == CLASS_NAME


def test_a_detector_gives_the_same_in_any_mode(fitted: FittedModel, seven_frames: Frame) -> None:
    detector: Detector = fitted.detector
    assert not detector.training
    frames = torch.from_numpy(seven_frames)
    with torch.enable_grad():
        assert not detector(frames)[0].requires_grad
