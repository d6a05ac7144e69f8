"""Options of ``export-model``: their choices, where results go, and fields of the settings."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchline.runtime.cluster.shares import check_gpus
from patchline.runtime.errors import ConfigurationError


class Method(str, enum.Enum):
    """What is fitted."""

    PATCHCORE_NOISING = "patchcore-noising"
    PATCHCORE = "patchcore"
    REVERSE_DISTILLATION = "reverse-distillation"


class Place(str, enum.Enum):
    """Where the memory bank is."""

    EMBEDDED = "embedded"
    EXTERNAL = "external"


class SearchName(str, enum.Enum):
    """How the memory bank is searched."""

    AUTO = "auto"
    EXACT = "exact"
    PRUNED = "pruned"


class CoresetName(str, enum.Enum):
    """How the memory bank is chosen."""

    EXACT = "exact"
    SHARDED = "sharded"


class PrecisionName(str, enum.Enum):
    """Of the backbone; the bank follows where the gate allows it."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class CalibrationMethod(str, enum.Enum):
    """How INT8 ranges are found."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


class Device(str, enum.Enum):
    """Where PyTorch computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class RayOptions:
    """A Ray cluster, and what each class gets of it.

    Attributes:
        address: ``auto``, ``local``, ``HOST:PORT`` or ``ray://HOST:PORT``.
        cpus: CPU threads.
        gpus: GPUs, or a share of one; ``None`` where it was not given.
    """

    address: str
    cpus: int = 1
    gpus: float | None = None


def ray_options(address: str | None, cpus: int | None, gpus: float | None) -> RayOptions | None:
    """The cluster that is asked for, ``None`` where none is.

    Args:
        address: of ``--ray``.
        cpus: of ``--ray-cpus``.
        gpus: of ``--ray-gpus``.

    Raises:
        ConfigurationError: a share without a cluster, or one that cannot be.
    """
    shares = {"--ray-cpus": cpus, "--ray-gpus": gpus}
    given = [name for name, value in shares.items() if value is not None]
    if address is None:
        if given:
            raise ConfigurationError(
                f"{', '.join(given)} would do nothing without a cluster: add --ray auto, local or "
                "an address, or leave that out"
            )
        return None
    if cpus is not None and cpus < 1:
        raise ConfigurationError(f"--ray-cpus is {cpus}, expected 1 or more CPU threads")
    check_gpus(gpus)
    return RayOptions(address, cpus or 1, gpus)


def is_fleet(names: Sequence[str], ray: RayOptions | None) -> bool:
    """Whether a call is one for several classes; of one class its error is the call's.

    Args:
        names: of ``--cls``.
        ray: the cluster that is asked for.
    """
    return ray is not None or "all" in names or len(set(names)) > 1


def check_one_class(ray: RayOptions | None) -> None:
    """Refuse, for ``--extend``, options of several classes.

    Raises:
        ConfigurationError: a cluster is asked for.
    """
    if ray is not None:
        raise ConfigurationError(
            "--extend adds pictures to one class, here, and --ray makes many elsewhere: leave one "
            "of them out"
        )


def fields_of(config: Path | None, overrides: Sequence[str] = (), **options: Any) -> dict[str, Any]:
    """Fields of :class:`patchline.export.config.FitSettings` that were given; not checked yet.

    Args:
        config: a TOML file of fields, or the name of a preset, which options override.
        overrides: what ``--set`` was given, such as ``train.lr=0.002``.
        options: values by the option's name; ``None`` where it was not given.

    Raises:
        ConfigurationError: no such file nor preset, no TOML, a text that is no size, names, bytes
            or override, or an option and an override that say different things or that this
            training has no use for.
    """
    from patchline.export.config import parse_names, parse_size, read_fields
    from patchline.export.overrides import joined, parse_overrides
    from patchline.runtime.byte_size import parse_bytes

    parsed: dict[str, tuple[str, Callable[[str], Any]]] = {
        "image_size": ("image_size", parse_size),
        "memory_budget": ("memory_budget_bytes", parse_bytes),
        "float_layers": ("float_layers", parse_names),
    }
    given: dict[str, Any] = {}
    for option, value in options.items():
        if value is None:
            continue
        name, convert = parsed.get(option, (option, _plain))
        table = given.setdefault("train", {}) if option in _OF_TRAINING else given
        table[name] = convert(value)
    given = joined(given, parse_overrides(overrides))
    fields = read_fields(config, given)
    _check_noise(given, fields)
    return fields


_OF_TRAINING = ("epochs", "noise")
"""Options whose fields are in the table ``train``."""


def _check_noise(given: dict[str, Any], fields: dict[str, Any]) -> None:
    """Raises: ConfigurationError: how the noise is was given, and there is none.

    A settings file may say it for several trainings, so that it is not refused there.
    """
    asked, train = given.get("train"), fields.get("train")
    if not isinstance(asked, dict) or not isinstance(train, dict):
        return  # refused with the settings
    names = [f"train.{name}" for name in asked if name.startswith("noise_")]
    if names and not train.get("noise", False):
        raise ConfigurationError(
            f"{', '.join(names)} would do nothing, since this training has no noise: add --noise, "
            "or leave that out"
        )


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value
