"""The machine that is measured: processor, cores, GPU, driver, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_PACKAGES = ("patchline", "numpy", "opencv-python-headless", "pycuda")

_ARM_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x4e", "0x003"): "Denver 2",
    ("0x4e", "0x004"): "Carmel",
}
"""By implementer and part: Linux gives an ARM processor no name."""


@dataclass(frozen=True)
class Machine:
    """What does not change in a run.

    Attributes:
        cpu: name of the processor.
        cores: that the machine has.
        usable_cores: that this process may use.
        memory_bytes: of the machine.
        system: such as ``Linux 5.15.148-tegra aarch64``.
        python: its version.
        packages: their versions; ``None`` where one is not installed.
        gpus: NVIDIA GPUs, as the driver calls them.
        driver: version of NVIDIA's kernel driver.
    """

    cpu: str
    cores: int
    usable_cores: int
    memory_bytes: int | None
    system: str
    python: str
    packages: dict[str, str | None]
    gpus: list[str]
    driver: str | None


def describe_machine(root: Path = _ROOT) -> Machine:
    """What the system tells; nothing is run for it.

    Args:
        root: of the file system.
    """
    cores = os.cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return Machine(
        cpu=_cpu(read_text(root / "proc/cpuinfo")),
        cores=cores,
        usable_cores=len(affinity(0)) if affinity else cores,
        memory_bytes=_memory(read_text(root / "proc/meminfo")),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: _version(name) for name in _PACKAGES},
        gpus=_gpus(root),
        driver=_driver(read_text(root / "proc/driver/nvidia/version")),
    )


def read_text(path: Path) -> str:
    """A small file of the system without the NULs and space around it; empty where it is not."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\n")
    except OSError:
        return ""


def _cpu(info: str) -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    if named and not named[1].startswith("ARMv"):  # an architecture and no name
        return named[1].strip()
    parts = re.findall(r"^CPU (?:implementer|part)\s*:\s*(\S+)$", info, re.MULTILINE)
    pairs = dict.fromkeys(zip(parts[::2], parts[1::2], strict=False))
    known = [_ARM_PARTS.get(pair, f"ARM {pair[0]}/{pair[1]}") for pair in pairs]
    return " + ".join(known) or platform.processor() or platform.machine() or "unknown"


def _memory(info: str) -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+) kB", info, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _gpus(root: Path) -> list[str]:
    files = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    models = (re.search(r"^Model:\s*(.+)$", read_text(file), re.MULTILINE) for file in files)
    return [found[1].strip() for found in models if found]


def _driver(text: str) -> str | None:
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", text)
    return found[1] if found else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
