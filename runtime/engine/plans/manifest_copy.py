"""The manifest beside a plan that lies elsewhere than its model: who runs it needs both."""

from __future__ import annotations

from pathlib import Path

from patchline.runtime.contract import manifest_path
from patchline.runtime.errors import ConfigurationError, ManifestError
from patchline.runtime.files import write_atomically
from patchline.runtime.graph import load_any_manifest


def needs_manifest(onnx: Path, plan: Path) -> bool:
    """Whether the model's manifest must be written beside the plan.

    Not where the plan's is the model's own file, and not where it is of the same model already: it
    may hold a threshold that was calibrated there.

    Raises:
        ManifestError: the model's manifest is missing or damaged.
        ConfigurationError: a file that is not the plan's to replace is in the way.
    """
    there, own = manifest_path(plan), manifest_path(onnx)
    model = load_any_manifest(own)
    if there.resolve() == own.resolve() or not there.exists():
        return not there.exists()
    if plan.with_suffix(".onnx").exists():
        raise _in_the_way(there, plan, f"the manifest of {plan.with_suffix('.onnx').name}")
    try:
        found = load_any_manifest(there)
    except ManifestError as error:
        raise _in_the_way(there, plan, "no manifest of Patchline") from error
    return found.onnx != model.onnx


def put_manifest(onnx: Path, plan: Path) -> None:
    """Write the model's manifest beside the plan.

    Raises:
        WriteError: it cannot be written.
    """
    write_atomically(manifest_path(plan), manifest_path(onnx).read_bytes())


def _in_the_way(path: Path, plan: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is {what}, and {plan.name} needs the manifest of its own model there. Choose "
        "another --out"
    )
