"""What a process of its own holds, from the system's account of it."""

from __future__ import annotations

import re
from pathlib import Path

from patchline.runtime.errors import ConfigurationError

_STATUS = Path("/proc/self/status")


def resident_mib() -> float:
    """Memory that this process holds now, in MiB."""
    return _field_mib("VmRSS")


def peak_mib() -> float:
    """The most that this process has held, in MiB.

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    return _field_mib("VmHWM")


def memory_report(baseline_mib: float) -> dict[str, float]:
    """Memory in MiB: ``baseline`` as given, ``resident`` now, ``peak`` so far."""
    resident = resident_mib()
    # The system counts both in steps of some pages, so the peak may look smaller.
    return {"baseline": baseline_mib, "resident": resident, "peak": max(resident, peak_mib())}


def _field_mib(name: str) -> float:
    if not _STATUS.is_file():
        raise ConfigurationError(f"memory is measured from {_STATUS}, which only Linux has")
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise ConfigurationError(f"{_STATUS} has no line {name}, which Linux writes")
    return round(int(found[1]) / 1024, 2)
