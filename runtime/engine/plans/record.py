"""The record beside a plan: what it was built from, by what, for what (DESIGN section 2).

A plan runs only on the GPU model and the TensorRT version that built it, and only stands for the
ONNX file it was built from. TensorRT itself finds some of that out by crashing, so the record is
compared first, and a plan is never even read into TensorRT before its own digest is right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patchline.runtime.errors import ModelError

RECORD_VERSION: Final = 1
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Batch = Annotated[int, Field(ge=1)]
_Rows = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)


class Device(_Section):
    """A GPU as a plan sees it; ``gpu`` is its model, ``compute_capability`` such as ``8.7``."""

    gpu: str
    compute_capability: str


class BuildOptions(_Section):
    """What a plan is built for.

    Attributes:
        batch: smallest, most common and largest number of frames in one call.
        workspace_bytes: scratch memory that kernels may use; ``None`` for all there is.
        tf32: whether float32 products may be rounded to TF32 (10 bits of mantissa).
        bank_rows: smallest, most common and largest number of rows of an external memory bank;
            ``None`` where the bank is in the model.
    """

    batch: tuple[_Batch, _Batch, _Batch] = (1, 1, 8)
    workspace_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    tf32: bool = False
    bank_rows: tuple[_Rows, _Rows, _Rows] | None = None


class PlanRecord(_Section):
    """``bottle.trt.json``."""

    record_version: Literal[1] = RECORD_VERSION
    onnx_sha256: _Digest
    plan_sha256: _Digest
    flavour: str
    version: str
    device: Device | None
    options: BuildOptions

    def to_json(self) -> str:
        """The record as JSON text."""
        return self.model_dump_json(indent=2) + "\n"


def record_path(plan: Path) -> Path:
    """``bottle.trt`` -> ``bottle.trt.json``."""
    return plan.with_name(f"{plan.name}.json")


def load_record(plan: Path) -> PlanRecord:
    """Read the record of a plan.

    Raises:
        ModelError: it is missing, of a newer version or was edited (names the fields).
    """
    path = record_path(plan)
    try:
        return PlanRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path} is missing: nothing says what {plan.name} was built from. Build it here: "
            f"build-engine {plan.with_suffix('.onnx').name}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        fields = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg'].lower()}"
            for item in error.errors()
        )
        raise ModelError(
            f"{path} is no valid plan record: {fields}. Build the plan again"
        ) from error


def mismatches(record: PlanRecord, wanted: PlanRecord) -> list[str]:
    """What keeps a plan from standing for what is wanted, as sentences; empty where it does.

    ``plan_sha256`` is not compared: it is of the file, not of what was wanted.
    """
    found = []
    if (record.flavour, record.version) != (wanted.flavour, wanted.version):
        found.append(
            f"it was built with {record.flavour} {record.version}, this machine has "
            f"{wanted.flavour} {wanted.version}"
        )
    if record.device != wanted.device:
        found.append(f"it was built for {_gpu(record.device)}, this is {_gpu(wanted.device)}")
    if record.onnx_sha256 != wanted.onnx_sha256:
        found.append("it was built from another ONNX file than the one beside it")
    found += [
        f"it was built with {name} {getattr(record.options, name)}, asked is "
        f"{getattr(wanted.options, name)}"
        for name in BuildOptions.model_fields
        if getattr(record.options, name) != getattr(wanted.options, name)
    ]
    return found


def _gpu(device: Device | None) -> str:
    if device is None:
        return "no GPU"
    return f"{device.gpu} ({device.compute_capability})"
