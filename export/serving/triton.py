"""A class in a Triton model repository: one model, or an ensemble of a shared backbone and a head.

A graph of all classes takes its bank as inputs, and Triton has no inputs that stay: the bank would
travel with every request. So it is cut at the patch embeddings: the backbone is one model, whatever
the number of classes on it, a class's head holds its bank, and the class's own name is an ensemble
of the two (issue 9).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from patchline.export.serving.found_model import FoundModel, Place, find_plan
from patchline.export.serving.one_writer import only_writer
from patchline.export.serving.repository import Content, Published, check_ours, publish
from patchline.export.serving.split_graph import (
    EMBEDDINGS,
    SplitGraph,
    digest_of,
    serialized,
    split_graph,
)
from patchline.export.serving.triton_config import (
    CLASS,
    KIND,
    ONNX_RUNTIME,
    PREFIX,
    Backend,
    Step,
    backbone_config,
    described,
    ensemble_config,
    head_config,
    plan_backend,
    whole_config,
)
from patchline.export.serving.verify import check_equal, run, sample_frames
from patchline.runtime.bank import Bank
from patchline.runtime.contract import FRAMES, OUTPUTS
from patchline.runtime.engine.plans.record import record_path
from patchline.runtime.errors import ConfigurationError

MODEL, PLAN = "model.onnx", "model.plan"
HEAD_SUFFIX = "-head"
BACKBONE_PREFIX = "patchline-backbone-"

_WHOLE, _ENSEMBLE, _HEAD, _BACKBONE = "model", "ensemble", "head", "backbone"
_KINDS: dict[Place, str] = {"embedded": _WHOLE, "external": _ENSEMBLE}


def check_name(repository: Path, name: str, place: Place | None = None) -> None:
    """Refuse, before a fit, a class whose names in the repository are another's.

    Args:
        repository: the folder of all models.
        name: the class.
        place: where its bank will be; ``None`` where that is not known yet.

    Raises:
        ConfigurationError: they are, or are kept for what classes share.
    """
    if name.startswith(BACKBONE_PREFIX):
        raise ConfigurationError(
            f"the class {name} is called like a backbone that classes share. Rename it"
        )
    kinds = _KINDS if place is None else {place: _KINDS[place]}
    check_ours(repository, name, *({KIND: kind, CLASS: name} for kind in kinds.values()))
    if place == "external":
        check_ours(repository, name + HEAD_SUFFIX, {KIND: _HEAD, CLASS: name})


def check_apart(places: Mapping[str, Place | None]) -> None:
    """Refuse a class that is called like the head of another one of the same call.

    Args:
        places: class name -> where its bank will be; ``None`` where that is not known yet.

    Raises:
        ConfigurationError: there is one.
    """
    for name, place in places.items():
        if place == "external" and name + HEAD_SUFFIX in places:
            raise ConfigurationError(
                f"the class {name}{HEAD_SUFFIX} is called like the model that holds the bank of "
                f"{name}. Rename it, or give them two --serve-dir"
            )


def serve_triton(model: FoundModel, repository: Path, *, plan: bool = False) -> list[Published]:
    """Put a class into a model repository.

    Args:
        model: of the class.
        repository: the folder of all models.
        plan: its TensorRT plan instead of the ONNX file.

    Returns:
        What is there now: the class's own model comes last.

    Raises:
        ConfigurationError: a model of that name is not ours, or the plan is none for Triton.
        ModelError: the plan is missing or of another model, or the graph cannot be cut.
        ParityError: the parts do not compute what the graph does.
        WriteError: a file cannot be written.
    """
    check_name(repository, model.name, "embedded" if model.bank is None else "external")
    if plan:
        file, record = find_plan(model)
        beside = record_path(file)
        files: dict[str, Content] = {PLAN: file, beside.name: beside}
        return [_publish_whole(model, repository, files, plan_backend(record.options.batch))]
    if model.bank is None:
        # The second file keeps its name: the first one holds it.
        files = {MODEL: model.onnx, **{file.name: file for file in model.files[1:]}}
        return [_publish_whole(model, repository, files, ONNX_RUNTIME)]
    return _publish_parts(model, model.bank, repository)


def _publish_whole(
    model: FoundModel, repository: Path, files: dict[str, Content], backend: Backend
) -> Published:
    size = model.manifest.model_size
    with only_writer(repository):
        return publish(
            repository,
            model.name,
            files,
            lambda version: whole_config(
                model.name,
                size,
                backend,
                described(model.manifest, _WHOLE, version, model.onnx_sha256),
            ),
            {KIND: _WHOLE, CLASS: model.name},
        )


def _publish_parts(model: FoundModel, bank: Bank, repository: Path) -> list[Published]:
    parts = _verified_parts(model, bank)
    with only_writer(repository):
        backbone = _publish_backbone(model, parts, repository)
        head = _publish_head(model, parts, repository)
        return [backbone, head, _publish_ensemble(model, backbone, head, repository)]


def _publish_ensemble(
    model: FoundModel, backbone: Published, head: Published, repository: Path
) -> Published:
    steps = (
        Step(backbone.folder.name, backbone.version, (FRAMES,), (EMBEDDINGS,)),
        Step(head.folder.name, head.version, (EMBEDDINGS,), OUTPUTS),
    )
    return publish(
        repository,
        model.name,
        {},  # Triton wants a version of an ensemble, and nothing in it
        lambda version: ensemble_config(
            model.name,
            model.manifest.model_size,
            steps,
            described(model.manifest, _ENSEMBLE, version, model.onnx_sha256),
        ),
        {KIND: _ENSEMBLE, CLASS: model.name},
    )


def _verified_parts(model: FoundModel, bank: Bank) -> SplitGraph:
    graph = onnx.load(model.onnx)
    parts = split_graph(graph, model.manifest.required_bank().dimension, bank.tensors)
    frames = sample_frames(model.manifest.model_size)
    between = run(parts.backbone, {FRAMES: frames})
    expected = run(graph, {FRAMES: frames, **bank.tensors})
    check_equal(run(parts.head, between), expected, OUTPUTS)
    return parts


def _publish_backbone(model: FoundModel, parts: SplitGraph, repository: Path) -> Published:
    manifest, name = model.manifest, BACKBONE_PREFIX + digest_of(parts.backbone)
    owner = {KIND: _BACKBONE, f"{PREFIX}weights_sha256": manifest.backbone.weights_sha256}
    config = backbone_config(
        name,
        manifest.model_size,
        parts.shape,
        EMBEDDINGS,
        {**owner, f"{PREFIX}backbone": manifest.backbone.name},
    )
    return publish(repository, name, {MODEL: serialized(parts.backbone)}, lambda _: config, owner)


def _publish_head(model: FoundModel, parts: SplitGraph, repository: Path) -> Published:
    # Versions of one model share its dims, so another shape is another model.
    shape = "x".join(map(str, parts.shape))
    owner = {KIND: _HEAD, CLASS: model.name, f"{PREFIX}embeddings": shape}
    name = model.name + HEAD_SUFFIX
    config = head_config(name, model.manifest.model_size, parts.shape, EMBEDDINGS, owner)
    return publish(repository, name, {MODEL: serialized(parts.head)}, lambda _: config, owner)
