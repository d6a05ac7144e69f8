"""nvinfer's configuration and the graph it names."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from patchline.export.serving import deepstream as deepstream_module
from patchline.export.serving.deepstream import nvinfer_config, serve_deepstream
from patchline.export.serving.found_model import FoundModel, find_model
from patchline.export.serving.verify import run, sample_frames
from patchline.runtime.contract import FRAMES, OUTPUTS, load_manifest, manifest_path
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ModelError, ParityError
from patchline.runtime.files import sha256_of_file

from ..drawn import CLASS_NAME

CONFIG = f"config_infer_primary_{CLASS_NAME}.txt"


def properties(text: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    assert parser.sections() == ["property"]
    return dict(parser["property"])


def test_the_frames_are_what_the_graph_takes(whole: FoundModel, tmp_path: Path) -> None:
    served = serve_deepstream(whole, tmp_path)
    assert served.config == tmp_path / CONFIG
    found = properties(served.config.read_text())
    graph = onnx.load(tmp_path / found["onnx-file"])
    (frames,) = graph.graph.input
    assert frames.name == FRAMES
    assert frames.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    dims = [dim.dim_value for dim in frames.type.tensor_type.shape.dim]
    assert ";".join(map(str, dims[1:])) == found["infer-dims"]
    assert found["network-input-order"] == "0"  # planes
    assert found["output-blob-names"].split(";") == [item.name for item in graph.graph.output]


def test_pixels_are_bgr_and_not_scaled_and_the_aspect_ratio_is_not_kept(
    whole: FoundModel, tmp_path: Path
) -> None:
    found = properties(serve_deepstream(whole, tmp_path).config.read_text())
    assert found["model-color-format"] == "1"
    assert float(found["net-scale-factor"]) == 1.0
    assert "offsets" not in found and "mean-file" not in found
    assert found["maintain-aspect-ratio"] == "0"
    assert (found["network-type"], found["output-tensor-meta"]) == ("100", "1")


@pytest.mark.parametrize("place", ["embedded", "external"])
def test_the_graph_judges_as_the_engine_does(
    place: str, whole: FoundModel, external: Path, tmp_path: Path
) -> None:
    model = whole if place == "embedded" else find_model(external, CLASS_NAME)
    config = serve_deepstream(model, tmp_path / "ds").config
    graph = onnx.load(config.parent / properties(config.read_text())["onnx-file"])
    frames = sample_frames(model.manifest.model_size)
    with open_engine(model.onnx, provider="cpu", bank=model.bank) as engine:
        expected = engine.infer(frames)
    found = run(graph, {FRAMES: frames.transpose(0, 3, 1, 2).astype(np.float32)})
    for name in OUTPUTS:
        np.testing.assert_array_equal(
            found[name].reshape(getattr(expected, name).shape), getattr(expected, name)
        )


def test_an_engine_of_another_model_has_another_name(whole: FoundModel, tmp_path: Path) -> None:
    """nvinfer would go on with the engine that it built before."""
    first = properties(serve_deepstream(whole, tmp_path).config.read_text())
    again = properties(serve_deepstream(whole, tmp_path).config.read_text())
    graph = onnx.load(whole.onnx)
    for item in graph.graph.initializer:
        if item.data_type == onnx.TensorProto.FLOAT and len(item.dims) == 2:
            values = onnx.numpy_helper.to_array(item) * np.float32(1.01)
            item.CopyFrom(onnx.numpy_helper.from_array(values, item.name))
            break
    onnx.save(graph, whole.onnx)
    other = properties(serve_deepstream(whole, tmp_path).config.read_text())
    assert first == again
    for key in ("onnx-file", "model-engine-file"):
        assert other[key] != first[key]
        assert other["onnx-file"] in other["model-engine-file"]


def test_the_manifest_goes_along_and_the_graph_is_no_model_of_other_commands(
    whole: FoundModel, tmp_path: Path
) -> None:
    config = serve_deepstream(whole, tmp_path).config
    assert load_manifest(tmp_path / f"{CLASS_NAME}.deepstream.json") == whole.manifest
    graph = tmp_path / properties(config.read_text())["onnx-file"]
    document = json.loads((tmp_path / f"{CLASS_NAME}.deepstream.json").read_text())
    document["onnx"]["sha256"] = sha256_of_file(graph)
    manifest_path(graph).write_text(json.dumps(document))
    with pytest.raises(ModelError, match="it is no Patchline model"):
        open_engine(graph, provider="cpu")


def test_the_same_again_changes_nothing(whole: FoundModel, tmp_path: Path) -> None:
    assert serve_deepstream(whole, tmp_path).is_changed
    assert not serve_deepstream(whole, tmp_path).is_changed


@pytest.mark.parametrize(("precision", "mode"), [("fp16", "2"), ("int8", "1")])
def test_nvinfer_does_not_build_what_it_would_build_otherwise(
    whole: FoundModel, precision: str, mode: str
) -> None:
    """It knows no strongly typed networks: the engine is built by trtexec."""
    manifest = whole.manifest.model_copy(update={"precision": precision})
    text = nvinfer_config(manifest, "gasket.deepstream-1.onnx")
    found = properties(text)
    assert "onnx-file" not in found
    assert found["network-mode"] == mode
    assert f"--saveEngine={found['model-engine-file']}" in text
    assert "--stronglyTyped" in text
    assert "frames:1x3x64x64" in text


def test_a_graph_that_judges_otherwise_is_not_written(
    whole: FoundModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = deepstream_module.with_float_frames

    def wrong(graph: onnx.ModelProto, size: object) -> onnx.ModelProto:
        made = real(graph, whole.manifest.model_size)
        for node in made.graph.node:
            if node.name == "frames_packed":
                node.attribute[0].ints[:] = [0, 3, 2, 1]  # height and width exchanged
        return made

    monkeypatch.setattr(deepstream_module, "with_float_frames", wrong)
    with pytest.raises(ParityError, match="gives another image_score"):
        serve_deepstream(whole, tmp_path / "ds")
    assert not (tmp_path / "ds").exists()
