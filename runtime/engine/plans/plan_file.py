"""Plan file -> TensorRT engine, never before the plan's digest is right (DESIGN section 2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchline.runtime.bank import Bank, check_given
from patchline.runtime.contract import Manifest, manifest_path
from patchline.runtime.engine.checks import check_resize
from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.cuda.errors import failure
from patchline.runtime.engine.plans.record import load_record, record_path
from patchline.runtime.errors import ModelError
from patchline.runtime.graph import GraphManifest, load_any_manifest


@dataclass(frozen=True)
class PlanFile:
    """A plan that is what its record and its manifest say.

    Attributes:
        path: where it lies.
        manifest: of the model, or of a graph without a bank.
        content: the plan.
    """

    path: Path
    manifest: Manifest | GraphManifest
    content: bytes


def read_plan(plan: Path, bank: Path | Bank | None) -> PlanFile:
    """Read a plan and check it against the files beside it.

    Args:
        plan: ``bottle.trt``; ``bottle.json`` and ``bottle.trt.json`` lie beside it.
        bank: the bank that was given, if any.

    Raises:
        ConfigurationError: a bank is missing, or given for a model that holds its own.
        ModelError: a file is missing, damaged, altered or of another model.
    """
    beside = manifest_path(plan)
    manifest = load_any_manifest(beside)
    check_resize(manifest, beside)
    check_given(manifest, bank, plan)
    record = load_record(plan)
    if manifest.onnx is None or manifest.onnx.sha256 != record.onnx_sha256:
        raise ModelError(
            f"{plan} was not built from the model that {beside.name} was written for. "
            f"{_again(plan)}"
        )
    content = _read(plan)
    found = hashlib.sha256(content).hexdigest()
    if found != record.plan_sha256:
        raise ModelError(
            f"{plan} was cut short or altered: its digest is {found[:12]}…, and "
            f"{record_path(plan).name} says {record.plan_sha256[:12]}…. {_again(plan)}"
        )
    return PlanFile(plan, manifest, content)


def deserialize(plan: PlanFile, flavour: Flavour, runtime: Any, log: Any) -> Any:
    """TensorRT's engine of a plan.

    Args:
        plan: what :func:`read_plan` gave.
        flavour: the TensorRT that built it.
        runtime: its ``Runtime``.
        log: the log that the runtime writes to.

    Raises:
        EngineError: TensorRT refuses it (says why), or the GPU is lost.
    """
    log.errors = []
    engine = runtime.deserialize_cuda_engine(plan.content)
    if engine is None:
        reason = log.errors[-1] if log.errors else "no reason given"
        raise failure(f"{flavour} does not open {plan.path}", f"{reason}. {_again(plan.path)}")
    return engine


def _read(plan: Path) -> bytes:
    try:
        return plan.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{plan} does not exist. {_again(plan)}") from None
    except OSError as error:
        raise ModelError(f"cannot read {plan}: {error}. Copy or build it again") from error


def _again(plan: Path) -> str:
    return f"Build it here: build-engine {plan.with_suffix('.onnx').name}"
