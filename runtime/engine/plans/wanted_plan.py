"""What a plan should be, why the one that lies there is not, and the build that mends it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from patchline.runtime.contract import Manifest
from patchline.runtime.engine.build import Target, build_plan, check_batch
from patchline.runtime.engine.compat import TENSORRT
from patchline.runtime.engine.plans.bank_rows import with_bank_rows
from patchline.runtime.engine.plans.build_lock import build_lock
from patchline.runtime.engine.plans.record import (
    BuildOptions,
    PlanRecord,
    load_record,
    mismatches,
    record_path,
)
from patchline.runtime.errors import ManifestError, ModelError
from patchline.runtime.files import sha256_of_file
from patchline.runtime.graph import GraphManifest, load_any_manifest
from patchline.runtime.progress import Steps

Say = Callable[[str], None]
"""Given a sentence for the user: why a plan is built, that another process is waited for."""

_NO_DIGEST = "0" * 64


@dataclass(frozen=True)
class WantedPlan:
    """A plan as it should be.

    Attributes:
        plan: where it lies.
        onnx: what it is built from; need not be there while the plan fits.
        onnx_sha256: its digest, as its manifest tells it.
        target: what it is built by and for; the bank's rows are no default any more.
    """

    plan: Path
    onnx: Path
    onnx_sha256: str
    target: Target

    def problems(self) -> list[str]:
        """Why the plan that lies there may not be run, in parts of a sentence; empty if it may."""
        if not self.plan.is_file():
            return ["it does not exist"]
        if not record_path(self.plan).is_file():
            return [f"it has no {record_path(self.plan).name} that says what it was built from"]
        try:
            record = load_record(self.plan)
        except ModelError as error:
            return [f"it has no valid record ({error})"]
        # Never a look at a plan's digest that does not fit anyway: it may be a gigabyte.
        found = mismatches(record, self._record())
        if not found and sha256_of_file(self.plan) != record.plan_sha256:
            found = ["it was cut short or altered: its digest is not the record's"]
        return found

    def build(self, steps: Steps, say: Say, *, force: bool = False) -> PlanRecord | None:
        """Build the plan, unless another process has just done so.

        Args:
            steps: shows the progress.
            say: told why it is built, and that another process is waited for.
            force: build a plan that fits, too.

        Returns:
            The new plan's record; ``None`` where a plan that fits lies there now.

        Raises:
            PatchlineError: as :func:`~patchline.runtime.engine.build.build_plan`.
        """
        waited = False

        def wait() -> None:
            nonlocal waited
            waited = True
            say(f"another process is building {self.plan}; waiting for it")

        with build_lock(self.plan, wait):
            problems = self.problems()
            if not problems and (waited or not force):
                return None
            if problems:
                say(f"{self.sentence(problems)}. It is built now, which may take minutes")
            return build_plan(self.onnx, self.plan, self.target, steps)

    def sentence(self, problems: list[str]) -> str:
        """The problems as one sentence that begins with the plan's name."""
        return f"{self.plan}{'; '.join(problems).removeprefix('it')}"

    @property
    def command(self) -> str:
        """What a person types to build this plan."""
        options = self.target.options
        words = ["build-engine", str(self.onnx)]
        if self.plan != self.onnx.with_suffix(".trt"):
            words += ["--out", str(self.plan)]
        if options.batch != BuildOptions().batch:
            words += ["--batch", ":".join(map(str, options.batch))]
        if options.bank_rows is not None:
            words += ["--bank-rows", ":".join(map(str, options.bank_rows))]
        if options.workspace_bytes is not None:
            words += ["--workspace", str(options.workspace_bytes)]
        if self.target.flavour.name != TENSORRT:
            words += ["--flavour", self.target.flavour.name]
        return shlex.join(words + ["--tf32"] * options.tf32)

    def _record(self) -> PlanRecord:
        return PlanRecord(
            onnx_sha256=self.onnx_sha256,
            plan_sha256=_NO_DIGEST,
            flavour=self.target.flavour.name,
            version=self.target.flavour.version,
            device=self.target.device,
            options=self.target.options,
        )


def wanted_plan(plan: Path, onnx: Path, manifest_file: Path, target: Target) -> WantedPlan:
    """What a plan must be for a model.

    Args:
        plan: where it lies, or will.
        onnx: what it is built from.
        manifest_file: of that model, beside either.
        target: what it is built by and for; ``bank_rows`` may be ``None`` for the default.

    Raises:
        ManifestError: the manifest is missing or damaged.
        ConfigurationError: a batch profile or bank rows that cannot be.
    """
    check_batch(target.options.batch)
    model = load_any_manifest(manifest_file)
    options = with_bank_rows(target.options, model)
    return WantedPlan(
        plan, onnx, _digest(model, manifest_file), Target(target.flavour, target.device, options)
    )


def _digest(model: Manifest | GraphManifest, path: Path) -> str:
    if model.onnx is None:
        raise ManifestError(f"{path}: onnx: the field is missing. Copy the model's files again")
    return model.onnx.sha256
