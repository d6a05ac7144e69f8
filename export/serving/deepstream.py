"""A class for DeepStream: a graph that nvinfer can feed, and nvinfer's configuration (issue 9)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from patchline.export.serving.float_frames import with_float_frames
from patchline.export.serving.found_model import FoundModel
from patchline.export.serving.split_graph import digest_of, serialized, with_constants
from patchline.export.serving.verify import check_equal, run, sample_frames
from patchline.runtime.contract import FRAMES, OUTPUTS, Manifest
from patchline.runtime.files import sha256_of_file, staged_files

OWN_OUTPUT = 100
"""nvinfer's network type of a model whose output it does not interpret."""

MANIFEST_SUFFIX = ".deepstream.json"


@dataclass(frozen=True)
class DeepStreamFiles:
    """What was written.

    Attributes:
        config: of nvinfer.
        is_changed: whether it, or what it names, was another before.
    """

    config: Path
    is_changed: bool


def config_name(class_name: str) -> str:
    """File name of nvinfer's configuration for a class."""
    return f"config_infer_primary_{class_name}.txt"


def serve_deepstream(model: FoundModel, folder: Path) -> DeepStreamFiles:
    """Write the graph, its manifest and the configuration; together, and only after the check.

    Args:
        model: of the class.
        folder: of the files, made if it does not exist.

    Raises:
        ModelError: the graph is no model of the contract, or cannot be run.
        ParityError: it does not compute what the exported one does.
        WriteError: a file cannot be written.
    """
    graph = _verified(model)
    # nvinfer goes on with an engine that it built from another file of the same name.
    name = f"{model.name}.deepstream-{digest_of(graph)}.onnx"
    config = folder / config_name(model.name)
    with staged_files(folder) as stage:
        (stage / name).write_bytes(serialized(graph))
        (stage / f"{model.name}{MANIFEST_SUFFIX}").write_text(
            model.manifest.to_json(), encoding="utf-8"
        )
        (stage / config.name).write_text(nvinfer_config(model.manifest, name), encoding="utf-8")
        is_changed = any(not _is_there(file, folder) for file in stage.iterdir())
    return DeepStreamFiles(config, is_changed)


def nvinfer_config(manifest: Manifest, onnx_name: str) -> str:
    """Text of nvinfer's configuration for a model.

    Args:
        manifest: of the model.
        onnx_name: of the file that takes float planes, beside the configuration.
    """
    size = manifest.model_size
    lines = [
        f"# {manifest.class_name}: written by export-model --serve deepstream.",
        "# The score is an output tensor: docs/serving.md says how it is read and judged.",
        "[property]",
        "gpu-id=0",
        "gie-unique-id=1",
        "process-mode=1",
        f"network-type={OWN_OUTPUT}",
        "output-tensor-meta=1",
        f"output-blob-names={';'.join(OUTPUTS)}",
        "batch-size=1",
        *_engine_lines(manifest, onnx_name),
        f"infer-dims=3;{size.height};{size.width}",
        "network-input-order=0",
        "# BGR, 0 to 255: the rest is done in the graph.",
        "model-color-format=1",
        "net-scale-factor=1.0",
        "# As Patchline resizes, the aspect ratio is not kept; the filter is nearest to its own.",
        "maintain-aspect-ratio=0",
        "scaling-filter=3",
    ]
    return "\n".join(lines) + "\n"


def _engine_lines(manifest: Manifest, onnx_name: str) -> list[str]:
    if manifest.precision == "fp32":
        return [
            f"onnx-file={onnx_name}",
            f"model-engine-file={onnx_name}_b1_gpu0_fp32.engine",
            "network-mode=0",
        ]
    size, engine = manifest.model_size, f"{onnx_name}.engine"
    shapes = f"{FRAMES}:1x3x{size.height}x{size.width}"
    return [
        f"# The precision ({manifest.precision}) is in the file, and an engine that nvinfer builds",
        "# does not keep it: distances would overflow in half precision. Build it on this GPU:",
        f"#   trtexec --onnx={onnx_name} --stronglyTyped --saveEngine={engine} \\",
        f"#     --minShapes={shapes} --optShapes={shapes} --maxShapes={shapes}",
        f"model-engine-file={engine}",
        f"network-mode={2 if manifest.precision == 'fp16' else 1}",
    ]


def _verified(model: FoundModel) -> onnx.ModelProto:
    whole = onnx.load(model.onnx)
    if model.bank is not None:
        whole = with_constants(whole, model.bank.tensors)
    size = model.manifest.model_size
    made = with_float_frames(whole, size)
    frames = sample_frames(size)
    planes = frames.transpose(0, 3, 1, 2).astype("float32")
    check_equal(run(made, {FRAMES: planes}), run(whole, {FRAMES: frames}), OUTPUTS)
    # Without the manifest, since it takes other frames: no other command may take it for a model.
    del made.metadata_props[:]
    return made


def _is_there(file: Path, folder: Path) -> bool:
    there = folder / file.name
    return there.is_file() and sha256_of_file(there) == sha256_of_file(file)
