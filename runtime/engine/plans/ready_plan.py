"""A plan that may be run: found, or built here, by one process while the others wait."""

from __future__ import annotations

from pathlib import Path

from patchline.runtime.contract import Manifest, manifest_path
from patchline.runtime.engine.build import Target
from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.options import TensorRTOptions
from patchline.runtime.engine.plans.bank_rows import kept_options
from patchline.runtime.engine.plans.record import BuildOptions, Device, PlanRecord, load_record
from patchline.runtime.engine.plans.wanted_plan import Say, wanted_plan
from patchline.runtime.errors import EngineError, ModelError
from patchline.runtime.graph import GraphManifest, load_any_manifest
from patchline.runtime.progress import Steps


def ready_plan(
    plan: Path,
    flavour: Flavour,
    device: Device | None,
    tensorrt: TensorRTOptions,
    steps: Steps,
    say: Say,
) -> PlanRecord:
    """Make sure that a plan which fits model and machine lies at ``plan``.

    It must be of the model whose manifest lies beside it, of this TensorRT, this GPU and these
    options, and whole. Otherwise it is built from the ONNX file beside it.

    Args:
        plan: ``bottle.trt``; ``bottle.json`` lies beside it.
        flavour: the TensorRT that runs it.
        device: the GPU that runs it.
        tensorrt: whether it may be built, and for what; without options an older plan's own.
        steps: shows the progress of a build.
        say: told in a sentence why a plan is built, and that another process is waited for.

    Returns:
        The record of the plan that lies there.

    Raises:
        ConfigurationError: options that cannot be.
        ModelError: the manifest is missing, or the ONNX file is and is needed.
        EngineError: the plan does not fit and may not be built, or cannot be built.
        WriteError: the plan cannot be written.
    """
    beside, onnx = manifest_path(plan), plan.with_suffix(".onnx")
    options = tensorrt.options or _own_options(plan, load_any_manifest(beside))
    wanted = wanted_plan(plan, onnx, beside, Target(flavour, device, options))
    problems = wanted.problems()
    if problems and not tensorrt.build:
        on = f" --device {tensorrt.device}" if tensorrt.device else ""
        raise EngineError(f"{wanted.sentence(problems)}. Build it here: {wanted.command}{on}")
    if problems and not onnx.is_file():
        raise ModelError(
            f"{wanted.sentence(problems)}; and {onnx}, which it is built from, does not exist. "
            "Copy it here"
        )
    built = wanted.build(steps, say) if problems else None
    return built or load_record(plan)


def _own_options(plan: Path, model: Manifest | GraphManifest) -> BuildOptions:
    try:
        return kept_options(load_record(plan).options, model)
    except ModelError:
        return BuildOptions()
