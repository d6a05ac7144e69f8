"""What lies in a model repository: by Triton's schema, by the files, and after a change."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from patchline.export.serving import one_writer
from patchline.export.serving import triton as triton_module
from patchline.export.serving.found_model import FoundModel, classes_in, find_model, place_in
from patchline.export.serving.one_writer import only_writer
from patchline.export.serving.repository import publish
from patchline.export.serving.split_graph import EMBEDDINGS
from patchline.export.serving.triton import BACKBONE_PREFIX, check_apart, check_name, serve_triton
from patchline.export.serving.triton_config import CLASS, KIND
from patchline.export.serving.verify import sample_frames
from patchline.runtime.bank import load_bank, save_bank
from patchline.runtime.contract import (
    FRAMES,
    OUTPUTS,
    external_data_path,
    manifest_path,
    parse_manifest,
)
from patchline.runtime.engine import open_engine
from patchline.runtime.engine.plans.record import BuildOptions, Device, PlanRecord, record_path
from patchline.runtime.errors import ConfigurationError, ModelError, ParityError, WriteError
from patchline.runtime.files import sha256_of_file

from ..drawn import CLASS_NAME
from ..variants import publish as publish_model
from .conftest import OTHER, other_bank
from .stand_in import Repository


def config_of(folder: Path) -> ModelConfig:
    config: ModelConfig = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
    return config


def parameters_of(folder: Path) -> dict[str, str]:
    return {key: value.string_value for key, value in config_of(folder).parameters.items()}


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with what tells whether it was written again."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


def set_threshold(model: FoundModel, value: float) -> FoundModel:
    manifest = model.manifest
    threshold = manifest.threshold.model_copy(update={"value": value})
    manifest.model_copy(update={"threshold": threshold}).save(manifest_path(model.onnx))
    return find_model(model.onnx.parent, model.name)


def changed(model: FoundModel) -> FoundModel:
    """The same class, fitted again: another file."""
    graph = onnx.load(model.onnx)
    graph.producer_version = "another"
    publish_model(graph, model.onnx, model.manifest.model_copy(update={"onnx": None}))
    return find_model(model.onnx.parent, model.name)


class TestWholeModel:
    def test_the_configuration_is_triton_s_and_the_file_s(
        self, whole: FoundModel, tmp_path: Path
    ) -> None:
        (found,) = serve_triton(whole, tmp_path / "triton")
        assert (found.folder, found.version) == (tmp_path / "triton" / CLASS_NAME, 1)
        config = config_of(found.folder)
        assert (config.name, config.backend, config.max_batch_size) == (
            CLASS_NAME, "onnxruntime", 8,
        )  # fmt: skip
        assert config.version_policy.latest.num_versions == 1
        assert config.dynamic_batching.max_queue_delay_microseconds > 0
        assert [group.kind for group in config.instance_group] == [ModelInstanceGroup.KIND_AUTO]
        session = onnxruntime.InferenceSession(found.folder / "1" / "model.onnx")
        types = {"tensor(uint8)": DataType.TYPE_UINT8, "tensor(float)": DataType.TYPE_FP32}
        for items, told in (
            (session.get_inputs(), config.input),
            (session.get_outputs(), config.output),
        ):
            assert [item.name for item in items] == [one.name for one in told]
            assert [types[item.type] for item in items] == [one.data_type for one in told]
            for item, one in zip(items, told, strict=True):
                dims = one.reshape.shape if one.HasField("reshape") else one.dims
                assert list(item.shape[1:]) == list(dims)
                assert len(one.dims) > 0

    def test_the_file_is_the_exported_one(self, whole: FoundModel, tmp_path: Path) -> None:
        (found,) = serve_triton(whole, tmp_path / "triton")
        assert (found.folder / "1" / "model.onnx").read_bytes() == whole.onnx.read_bytes()

    def test_the_parameters_are_the_manifest(self, whole: FoundModel, tmp_path: Path) -> None:
        (found,) = serve_triton(whole, tmp_path / "triton")
        values, manifest = parameters_of(found.folder), whole.manifest
        assert float(values["patchline.threshold"]) == manifest.threshold.value
        assert float(values["patchline.map_threshold"]) == manifest.threshold.map_value
        assert values["patchline.class"] == CLASS_NAME
        assert values["patchline.score"] == manifest.score
        assert values["patchline.precision"] == "fp32"
        assert (values["patchline.height"], values["patchline.width"]) == ("64", "64")
        assert values["patchline.onnx_sha256"] == sha256_of_file(whole.onnx)
        assert values["patchline.version"] == manifest.versions["patchline"]
        assert parse_manifest(values["patchline.manifest"], "here") == manifest

    def test_samples_of_the_smallest_and_largest_batch_warm_it_up(
        self, whole: FoundModel, tmp_path: Path
    ) -> None:
        (found,) = serve_triton(whole, tmp_path / "triton")
        samples = config_of(found.folder).model_warmup
        kinds = {(s.batch_size, s.inputs[FRAMES].WhichOneof("input_data_type")) for s in samples}
        assert kinds == {(n, kind) for n in (1, 8) for kind in ("zero_data", "random_data")}
        Repository(tmp_path / "triton").model(CLASS_NAME).warm_up()

    def test_tensors_in_a_second_file_go_along(self, whole: FoundModel, tmp_path: Path) -> None:
        graph = onnx.load(whole.onnx)
        onnx.save_model(
            graph,
            str(whole.onnx),
            save_as_external_data=True,
            location=external_data_path(whole.onnx).name,
        )
        manifest = json.loads(manifest_path(whole.onnx).read_text())
        manifest["onnx"]["sha256"] = whole.onnx_sha256
        manifest_path(whole.onnx).write_text(json.dumps(manifest))
        model = find_model(whole.onnx.parent, CLASS_NAME)
        (found,) = serve_triton(model, tmp_path / "triton")
        names = {path.name for path in (found.folder / "1").iterdir()}
        assert names == {"model.onnx", f"{CLASS_NAME}.onnx.data"}
        assert parameters_of(found.folder)["patchline.onnx_sha256"] == model.onnx_sha256
        frames = sample_frames(model.manifest.model_size)
        assert set(Repository(tmp_path / "triton").infer(CLASS_NAME, 1, {FRAMES: frames})) == set(
            OUTPUTS
        )
        assert not serve_triton(model, tmp_path / "triton")[0].is_changed


class TestChanges:
    def test_the_same_again_touches_nothing(self, whole: FoundModel, tmp_path: Path) -> None:
        assert serve_triton(whole, tmp_path / "triton")[0].is_changed
        before = files_of(tmp_path / "triton")
        assert not serve_triton(whole, tmp_path / "triton")[0].is_changed
        assert files_of(tmp_path / "triton") == before

    def test_a_new_threshold_changes_the_configuration_alone(
        self, whole: FoundModel, tmp_path: Path
    ) -> None:
        serve_triton(whole, tmp_path / "triton")
        before = files_of(tmp_path / "triton")
        (found,) = serve_triton(set_threshold(whole, 0.5), tmp_path / "triton")
        assert (found.version, found.is_changed) == (1, True)
        after = files_of(tmp_path / "triton")
        assert {name for name in after if after[name] != before.get(name)} == {
            f"{CLASS_NAME}/config.pbtxt"
        }
        assert parameters_of(found.folder)["patchline.threshold"] == "0.5"

    def test_another_file_is_a_new_version_and_the_old_one_stays(
        self, whole: FoundModel, tmp_path: Path
    ) -> None:
        serve_triton(whole, tmp_path / "triton")
        old = (tmp_path / "triton" / CLASS_NAME / "1" / "model.onnx").read_bytes()
        (found,) = serve_triton(changed(whole), tmp_path / "triton")
        assert (found.version, found.is_changed) == (2, True)
        assert (found.folder / "1" / "model.onnx").read_bytes() == old
        assert (found.folder / "2" / "model.onnx").read_bytes() == whole.onnx.read_bytes() != old
        assert parameters_of(found.folder)["patchline.model_version"] == "2"

    def test_nothing_is_left_beside_and_no_server_is_shut_out(
        self, whole: FoundModel, tmp_path: Path
    ) -> None:
        place = tmp_path / "serve" / "triton"
        (found,) = serve_triton(whole, place)
        assert [path.name for path in place.parent.iterdir()] == ["triton"]
        assert [path.name for path in place.iterdir()] == [CLASS_NAME]
        assert found.folder.stat().st_mode & 0o055 == 0o055

    def test_whoever_looks_while_it_is_written_finds_whole_models(
        self, whole: FoundModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Looked at before every rename and every copied file."""
        seen, place = [], tmp_path / "triton"

        def look() -> None:
            folder = place / CLASS_NAME
            if folder.exists():
                versions = sorted(path.name for path in folder.iterdir() if path.is_dir())
                for version in versions:
                    onnxruntime.InferenceSession(folder / version / "model.onnx")
                named = parameters_of(folder)["patchline.model_version"]
                assert named in versions
                seen.append((versions, named))

        def looking(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **options: Any) -> Any:
                look()
                result = function(*given, **options)
                look()
                return result

            return call

        monkeypatch.setattr(Path, "rename", looking(Path.rename))
        monkeypatch.setattr(Path, "replace", looking(Path.replace))
        monkeypatch.setattr(os, "fsync", looking(os.fsync))
        serve_triton(whole, place)
        serve_triton(changed(whole), place)
        states = list(dict.fromkeys((tuple(versions), named) for versions, named in seen))
        assert states == [(("1",), "1"), (("1", "2"), "1"), (("1", "2"), "2")]

    def test_a_full_disk_leaves_what_was_there(
        self, whole: FoundModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = tmp_path / "triton"
        serve_triton(whole, place)
        before, again = files_of(place), changed(whole)

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match="the disk is full"):
            serve_triton(again, place)
        assert files_of(place) == before
        assert not list(tmp_path.glob(".patchline-*"))

    @pytest.mark.parametrize(
        ("config", "found"),
        [
            ('name: "gasket"\nbackend: "python"\n', "export-model did not write it"),
            (None, "it has no configuration"),
        ],
    )
    def test_another_s_model_of_that_name_is_refused(
        self, whole: FoundModel, tmp_path: Path, config: str | None, found: str
    ) -> None:
        folder = tmp_path / "triton" / CLASS_NAME
        folder.mkdir(parents=True)
        if config is not None:
            (folder / "config.pbtxt").write_text(config)
        before = files_of(tmp_path / "triton")
        with pytest.raises(ConfigurationError, match=found):
            serve_triton(whole, tmp_path / "triton")
        assert files_of(tmp_path / "triton") == before

    def test_another_class_of_ours_is_named(self, tmp_path: Path) -> None:
        owner = {KIND: "model", CLASS: "bottle"}
        text = 'parameters {\n  key: "patchline.class"\n  value { string_value: "bottle" }\n}\n'
        publish(tmp_path / "triton", "cap", {"a": b"1"}, lambda _: text, {})
        with pytest.raises(ConfigurationError, match=r"it is of class bottle, expected kind model"):
            check_name(tmp_path / "triton", "cap")
        with pytest.raises(ConfigurationError, match="is there already"):
            publish(tmp_path / "triton", "cap", {"a": b"2"}, lambda _: text, owner)

    def test_a_class_called_like_a_backbone_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="called like a backbone"):
            check_name(tmp_path, f"{BACKBONE_PREFIX}x")

    def test_zeros_before_a_number_are_no_version(self, tmp_path: Path) -> None:
        """Triton leaves such folders out."""
        (tmp_path / "triton" / "cap" / "007").mkdir(parents=True)
        (tmp_path / "triton" / "cap" / "config.pbtxt").write_text("")
        found = publish(tmp_path / "triton", "cap", {"a": b"1"}, lambda n: f"v{n}", {})
        assert found.version == 1


class TestOneWriter:
    """Versions are counted in the folder, and a backbone is shared: two calls would collide."""

    def test_a_second_call_waits_and_goes_on(self, whole: FoundModel, tmp_path: Path) -> None:
        found = list[Any]()
        waiting = threading.Thread(
            target=lambda: found.extend(serve_triton(whole, tmp_path / "serve" / "triton"))
        )
        with only_writer(tmp_path / "serve" / "triton"):
            waiting.start()
            waiting.join(0.5)
            assert found == [] and not (tmp_path / "serve" / "triton").exists()
        waiting.join(60)
        assert [one.version for one in found] == [1]
        assert [path.name for path in (tmp_path / "serve").iterdir()] == ["triton"]

    def test_parts_wait_too(
        self, external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found, model = list[Any](), find_model(external, CLASS_NAME)
        real, are_made = triton_module._verified_parts, threading.Event()

        def verified(*given: Any) -> Any:
            parts = real(*given)
            are_made.set()
            return parts

        monkeypatch.setattr(triton_module, "_verified_parts", verified)
        waiting = threading.Thread(
            target=lambda: found.extend(serve_triton(model, tmp_path / "triton"))
        )
        with only_writer(tmp_path / "triton"):
            waiting.start()
            assert are_made.wait(60)
            waiting.join(0.3)
            assert not (tmp_path / "triton").exists()
        waiting.join(60)
        assert len(found) == 3

    def test_one_that_never_ends_is_a_sentence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(one_writer, "PATIENCE_S", 0.1)
        with (
            only_writer(tmp_path / "triton"),
            pytest.raises(ConfigurationError, match=r"has been writing to .*triton for 0\.1 s"),
            only_writer(tmp_path / "triton"),
        ):
            pass
        with only_writer(tmp_path / "triton"), only_writer(tmp_path / "other"):
            pass


class TestBeforeTheFit:
    """What the repository holds is compared with the kind of model that will come."""

    def test_a_whole_model_in_the_way_of_an_ensemble_and_the_other_way_round(
        self, external: Path, whole: FoundModel, tmp_path: Path
    ) -> None:
        serve_triton(whole, tmp_path / "one")
        serve_triton(find_model(external, CLASS_NAME), tmp_path / "two")
        for place, fitting, other in (
            ("one", "embedded", "external"),
            ("two", "external", "embedded"),
        ):
            check_name(tmp_path / place, CLASS_NAME, fitting)  # type: ignore[arg-type]
            check_name(tmp_path / place, CLASS_NAME)
            with pytest.raises(ConfigurationError, match="is there already"):
                check_name(tmp_path / place, CLASS_NAME, other)  # type: ignore[arg-type]

    def test_another_s_model_in_the_way_of_the_head(self, tmp_path: Path) -> None:
        folder = tmp_path / "triton" / f"{CLASS_NAME}-head"
        folder.mkdir(parents=True)
        (folder / "config.pbtxt").write_text(f'name: "{CLASS_NAME}-head"\n')
        check_name(tmp_path / "triton", CLASS_NAME, "embedded")
        with pytest.raises(ConfigurationError, match="gasket-head is there already"):
            check_name(tmp_path / "triton", CLASS_NAME, "external")

    def test_a_class_that_is_called_like_a_head(self) -> None:
        check_apart({"cap": "embedded", "cap-head": "embedded"})
        check_apart({"cap": "external", "cap-body": "external"})
        with pytest.raises(ConfigurationError, match="cap-head is called like the model that"):
            check_apart({"cap": "external", "cap-head": None})

    def test_where_a_bank_is(self, external: Path, model: Path) -> None:
        assert place_in(external, OTHER) == "external"
        assert place_in(model.parent, CLASS_NAME) == "embedded"
        assert place_in(model.parent, "cap") is None
        (model.parent / f"{CLASS_NAME}.bank").touch()
        assert place_in(model.parent, CLASS_NAME) is None


class TestSharedBackbone:
    def serve(self, external: Path, place: Path, name: str = CLASS_NAME) -> list[str]:
        return [one.folder.name for one in serve_triton(find_model(external, name), place)]

    def test_two_classes_are_five_models(self, external: Path, tmp_path: Path) -> None:
        place = tmp_path / "triton"
        first, second = self.serve(external, place), self.serve(external, place, OTHER)
        assert first[0] == second[0] and first[0].startswith(BACKBONE_PREFIX)
        assert first[1:] == [f"{CLASS_NAME}-head", CLASS_NAME]
        assert {path.name for path in place.iterdir()} == {*first, *second}
        assert len({*first, *second}) == 5
        sizes = [(place / name / "1" / "model.onnx").stat().st_size for name in first[:2]]
        assert sizes[0] > 10 * sizes[1]

    def test_the_ensemble_judges_as_the_engine_does(self, external: Path, tmp_path: Path) -> None:
        """Bit for bit: frames, backbone, head and scores by the configuration alone."""
        place = tmp_path / "triton"
        for name in (CLASS_NAME, OTHER):
            self.serve(external, place, name)
        repository = Repository(place)
        for name in (CLASS_NAME, OTHER):
            model = find_model(external, name)
            frames = sample_frames(model.manifest.model_size)
            with open_engine(model.onnx, provider="cpu", bank=model.bank) as engine:
                expected = engine.infer(frames)
            found = repository.infer(name, 1, {FRAMES: frames})
            np.testing.assert_array_equal(found["image_score"], expected.image_score[:, None])
            np.testing.assert_array_equal(found["anomaly_map"], expected.anomaly_map)
            np.testing.assert_array_equal(found["influence_map"], expected.influence_map)

    def test_parts_are_warmed_up_and_the_ensemble_needs_nothing(
        self, external: Path, tmp_path: Path
    ) -> None:
        names = self.serve(external, tmp_path / "triton")
        repository = Repository(tmp_path / "triton")
        for name in names[:2]:
            assert len(repository.model(name).config.model_warmup) > 0
            repository.model(name).warm_up()
        ensemble = repository.model(CLASS_NAME).config
        assert len(ensemble.model_warmup) == 0 and not ensemble.HasField("dynamic_batching")
        assert [step.model_name for step in ensemble.ensemble_scheduling.step] == names[:2]
        assert repository.model(names[1]).config.input[0].name == EMBEDDINGS

    def test_a_new_bank_is_a_new_head_that_the_ensemble_names(
        self, external: Path, tmp_path: Path
    ) -> None:
        place, path = tmp_path / "triton", external / f"{CLASS_NAME}.bank"
        self.serve(external, place)
        before = files_of(place)
        save_bank(other_bank(load_bank(path), 1.5, CLASS_NAME), path)
        results = serve_triton(find_model(external, CLASS_NAME), place)
        assert [(one.version, one.is_changed) for one in results] == [
            (1, False), (2, True), (1, True),
        ]  # fmt: skip
        after = files_of(place)
        assert {name for name in after if after[name] != before.get(name)} == {
            f"{CLASS_NAME}-head/config.pbtxt",
            f"{CLASS_NAME}-head/2/model.onnx",
            f"{CLASS_NAME}/config.pbtxt",
        }
        step = config_of(place / CLASS_NAME).ensemble_scheduling.step[1]
        assert step.model_version == 2
        assert config_of(place / f"{CLASS_NAME}-head").version_policy.latest.num_versions == 2
        assert serve_triton(find_model(external, CLASS_NAME), place)[1].is_changed is False

    def test_a_model_with_its_bank_inside_is_not_replaced(
        self, external: Path, whole: FoundModel, tmp_path: Path
    ) -> None:
        serve_triton(whole, tmp_path / "triton")
        before = files_of(tmp_path / "triton")
        with pytest.raises(ConfigurationError, match="it is of kind model, class gasket, expected"):
            self.serve(external, tmp_path / "triton")
        assert files_of(tmp_path / "triton") == before

    def test_parts_that_judge_otherwise_are_not_written(
        self, external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = load_bank(external / f"{OTHER}.bank").tensors
        real = triton_module.split_graph
        monkeypatch.setattr(
            triton_module, "split_graph", lambda graph, dimension, _: real(graph, dimension, other)
        )
        with pytest.raises(ParityError, match="gives another image_score"):
            self.serve(external, tmp_path / "triton")
        assert not (tmp_path / "triton").exists()


class TestPlan:
    @staticmethod
    def plan_of(model: FoundModel, **changes: Any) -> Path:
        plan = model.onnx.with_suffix(".trt")
        plan.write_bytes(b"a plan")
        record = PlanRecord(
            **{
                "onnx_sha256": model.onnx_sha256,
                "plan_sha256": sha256_of_file(plan),
                "flavour": "tensorrt",
                "version": "10.3.0",
                "device": Device(gpu="L4", compute_capability="8.9"),
                "options": BuildOptions(batch=(1, 4, 16)),
                **changes,
            }
        )
        record_path(plan).write_text(record.to_json())
        return plan

    def test_the_profile_gives_the_batch(self, whole: FoundModel, tmp_path: Path) -> None:
        plan = self.plan_of(whole)
        (found,) = serve_triton(whole, tmp_path / "triton", plan=True)
        config = config_of(found.folder)
        assert (config.backend, config.max_batch_size) == ("tensorrt", 16)
        assert list(config.dynamic_batching.preferred_batch_size) == [4, 16]
        assert [group.kind for group in config.instance_group] == [ModelInstanceGroup.KIND_GPU]
        assert {sample.batch_size for sample in config.model_warmup} == {1, 16}
        version = found.folder / "1"
        assert {path.name for path in version.iterdir()} == {"model.plan", record_path(plan).name}
        assert (version / "model.plan").read_bytes() == plan.read_bytes()

    def test_a_plan_of_one_frame_has_no_preferred_batch(
        self, whole: FoundModel, tmp_path: Path
    ) -> None:
        self.plan_of(whole, options=BuildOptions(batch=(1, 1, 1)))
        (found,) = serve_triton(whole, tmp_path / "triton", plan=True)
        config = config_of(found.folder)
        assert list(config.dynamic_batching.preferred_batch_size) == []
        assert [sample.batch_size for sample in config.model_warmup] == [1, 1]

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"onnx_sha256": "0" * 64}, ModelError, "was built from another model than"),
            ({"plan_sha256": "0" * 64}, ModelError, "is not the file that gasket.trt.json is of"),
            ({"flavour": "tensorrt-rtx"}, ConfigurationError, "Triton opens plans of TensorRT"),
            (
                {"options": BuildOptions(batch=(2, 4, 8))},
                ConfigurationError,
                "takes 2 frames or more.*--batch 1:4:8",
            ),
        ],
    )
    def test_another_plan_is_refused(
        self,
        whole: FoundModel,
        tmp_path: Path,
        changes: dict[str, Any],
        error: type[Exception],
        message: str,
    ) -> None:
        self.plan_of(whole, **changes)
        with pytest.raises(error, match=message):
            serve_triton(whole, tmp_path / "triton", plan=True)
        assert not (tmp_path / "triton").exists()

    def test_a_missing_plan_says_how_it_is_built(self, whole: FoundModel, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"Build it here: build-engine gasket\.onnx"):
            serve_triton(whole, tmp_path / "triton", plan=True)

    def test_a_bank_that_would_travel_is_refused(self, external: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="would travel with every request"):
            serve_triton(find_model(external, CLASS_NAME), tmp_path / "triton", plan=True)


class TestFinding:
    def test_a_file_that_was_altered_is_refused(self, model: Path) -> None:
        model.write_bytes(model.read_bytes() + b"\0")
        with pytest.raises(ModelError, match=r"onnx.sha256 is"):
            find_model(model.parent, CLASS_NAME)

    def test_no_model_says_which_command_writes_one(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"cap.onnx does not exist.*export-model --cls cap"):
            find_model(tmp_path, "cap")
        with pytest.raises(ModelError, match="holds no model"):
            classes_in(tmp_path)

    def test_two_models_of_a_class_are_a_choice_to_make(self, external: Path, model: Path) -> None:
        for path in model.parent.glob(f"{CLASS_NAME}.*"):
            (external / path.name).write_bytes(path.read_bytes())
        with pytest.raises(ConfigurationError, match="are both of the class gasket"):
            find_model(external, CLASS_NAME)
        assert find_model(external, CLASS_NAME, "embedded").bank is None
        assert find_model(external, CLASS_NAME, "external").bank is not None

    def test_a_bank_without_its_graph_says_what_is_there(self, external: Path) -> None:
        for path in external.glob("resnet18-64.*"):
            path.unlink()
        with pytest.raises(ModelError, match=r"without its graph \(graphs beside it: none\)"):
            find_model(external, CLASS_NAME)

    def test_a_renamed_model_is_named(self, model: Path) -> None:
        for path in list(model.parent.iterdir()):
            path.rename(path.with_name(path.name.replace(CLASS_NAME, "cap")))
        with pytest.raises(ConfigurationError, match="is of the class gasket, expected cap"):
            find_model(model.parent, "cap")

    def test_all_classes_are_found(self, external: Path, model: Path) -> None:
        assert classes_in(external) == [CLASS_NAME, OTHER]
        assert classes_in(model.parent) == [CLASS_NAME]
