"""ONNX file -> plan for this machine: strongly typed, dynamic batch, timing cache (DESIGN 5)."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patchline.runtime import contract
from patchline.runtime.contract import Manifest, manifest_path, model_digest
from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.plans import timing_cache
from patchline.runtime.engine.plans.bank_rows import bank_shapes, with_bank_rows
from patchline.runtime.engine.plans.build_log import shared_log
from patchline.runtime.engine.plans.build_progress import UNITS, make_monitor
from patchline.runtime.engine.plans.record import BuildOptions, Device, PlanRecord, record_path
from patchline.runtime.errors import BuildError, ConfigurationError, ModelError
from patchline.runtime.files import staged_files
from patchline.runtime.graph import GraphManifest, load_any_manifest
from patchline.runtime.progress import Steps

_MIB = 1 << 20


@dataclass(frozen=True)
class Target:
    """What a plan is built by and for.

    Attributes:
        flavour: the TensorRT that builds.
        device: the GPU; ``None`` where there is none (TensorRT for RTX builds without one).
        options: batch profile, workspace, TF32, rows of an external bank.
    """

    flavour: Flavour
    device: Device | None
    options: BuildOptions


def build_plan(onnx: Path, plan: Path, target: Target, steps: Steps) -> PlanRecord:
    """Build a plan and write it with its record: both or neither.

    Args:
        onnx: the exported file, its manifest beside it.
        plan: where the plan goes, ``bottle.trt``.
        target: what it is built by and for.
        steps: shows progress. Ctrl-C ends the build at TensorRT's next step.

    Returns:
        The record that was written; its options are what was really used.

    Raises:
        ConfigurationError: a batch profile or bank rows that cannot be.
        ModelError: the ONNX file is missing or is not the manifest's, or TensorRT refuses it
            (the node is named).
        BuildError: TensorRT gives no plan (says why, and what to try).
        WriteError: the plan cannot be written; an older one is untouched.
        KeyboardInterrupt: it was interrupted.
    """
    check_batch(target.options.batch)
    model, digest = _checked_model(onnx)
    target = replace(target, options=with_bank_rows(target.options, model))
    with steps.step(f"Building {plan.name}", UNITS) as advance, _interruptible() as cancelled:
        monitor = make_monitor(target.flavour.trt, advance, cancelled)
        try:
            content = _build(onnx, target, monitor, cancelled)
        except BaseException as error:
            # The frames on the way here hold TensorRT's objects, and an error may live on.
            traceback.clear_frames(error.__traceback__)
            raise
    record = PlanRecord(
        onnx_sha256=digest,
        plan_sha256=hashlib.sha256(content).hexdigest(),
        flavour=target.flavour.name,
        version=target.flavour.version,
        device=target.device,
        options=target.options,
    )
    with staged_files(plan.parent) as stage:
        (stage / plan.name).write_bytes(content)
        record_path(stage / plan.name).write_text(record.to_json(), encoding="utf-8")
    return record


def check_batch(batch: tuple[int, int, int]) -> None:
    """Refuse a profile that does not ascend.

    Raises:
        ConfigurationError: it does not.
    """
    if not 1 <= batch[0] <= batch[1] <= batch[2]:
        raise ConfigurationError(
            f"the batch profile is {':'.join(map(str, batch))}, expected smallest:usual:largest "
            "number of frames, such as 1:1:8"
        )


def _checked_model(onnx: Path) -> tuple[Manifest | GraphManifest, str]:
    if not onnx.is_file():
        raise ModelError(f"{onnx} does not exist. export-model writes it; copy it here")
    manifest = load_any_manifest(manifest_path(onnx))
    digest = model_digest(onnx)
    if manifest.onnx is None or manifest.onnx.sha256 != digest:
        raise ModelError(
            f"{onnx} is not the file that {manifest_path(onnx).name} was written for. Copy both "
            "again, or export the model again"
        )
    return manifest, digest


def _build(onnx: Path, target: Target, monitor: Any, cancelled: threading.Event) -> bytes:
    trt = target.flavour.trt
    log = shared_log(trt)
    log.errors = []
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    # From the file and not from bytes, because a large model's tensors lie beside it.
    if not parser.parse_from_file(str(onnx)):
        raise ModelError(_refusal(onnx, target.flavour, parser))
    config = builder.create_builder_config()
    config.progress_monitor = monitor
    _configure(trt, builder, network, config, target.options)
    learned = timing_cache.timing_cache_path(target.flavour, target.device)
    if target.flavour.has_timing_cache:
        timing_cache.attach(config, learned)
    serialized = builder.build_serialized_network(network, config)
    if cancelled.is_set():
        raise KeyboardInterrupt
    if serialized is None:
        raise BuildError(_failure(onnx, target, log.errors))
    if target.flavour.has_timing_cache:
        timing_cache.keep(config, learned)
    return bytes(serialized)


def _configure(trt: Any, builder: Any, network: Any, config: Any, options: BuildOptions) -> None:
    if not options.tf32:  # on by default, and not what "fp32" promises
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    profile = builder.create_optimization_profile()
    inputs = [network.get_input(at) for at in range(network.num_inputs)]
    for tensor in inputs:
        shapes = _profile_shapes(tensor.name, tuple(tensor.shape), options)
        if shapes is not None:
            profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)


def _profile_shapes(
    name: str, shape: tuple[int, ...], options: BuildOptions
) -> list[tuple[int, ...]] | None:
    if name == contract.FRAMES:
        return [(count, *shape[1:]) for count in options.batch]
    return bank_shapes(name, shape, options.bank_rows) if options.bank_rows else None


def _refusal(onnx: Path, flavour: Flavour, parser: Any) -> str:
    errors = [parser.get_error(at) for at in range(parser.num_errors)]
    listed = "; ".join(
        f"node {error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors
    )
    return (
        f"{flavour} refuses {onnx.name}: {listed or 'no reason given'}. Export it again with this "
        "version of Patchline; if it stays, report the node"
    )


def _failure(onnx: Path, target: Target, errors: list[str]) -> str:
    reason = errors[-1] if errors else "no reason given"
    text = f"{target.flavour} built no plan from {onnx.name}: {reason}"
    if "memory" in reason.lower():
        options = target.options
        asked = f"{options.workspace_bytes // _MIB} MiB" if options.workspace_bytes else "no limit"
        text += (
            f". The largest batch is {options.batch[2]}, the workspace {asked}: lower --batch or "
            "--workspace, and close what else uses the GPU"
        )
    return text


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set: TensorRT holds the main thread, and asks for it."""
    cancelled = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield cancelled
        return

    def cancel(number: int, frame: Any) -> None:
        cancelled.set()

    before = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancelled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
