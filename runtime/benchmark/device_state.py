"""Clocks, governors and a Jetson's power mode, before and after: what a time depends on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchline.runtime.benchmark.machine import read_text

_ROOT = Path("/")
_GPU_DEVICES = ("gpu", "gv11b", "gp10b", "ga10b")
"""Parts of the names of GPUs below ``/sys/class/devfreq``: Orin's and Nano's, Xavier's, TX2's."""

_CHANGED = 0.05
"""A clock that differs by more than this share has changed."""

AskNvpmodel = Callable[[], str]
"""Gives what ``nvpmodel -q`` prints; empty where it cannot be run."""


@dataclass(frozen=True)
class ClockState:
    """One clock.

    Attributes:
        name: ``cpu0``, or the GPU's device.
        hz: now.
        least_hz: it may go down to; ``None`` where that is not told.
        most_hz: it may go up to; likewise.
        governor: what sets it; likewise.
    """

    name: str
    hz: int
    least_hz: int | None
    most_hz: int | None
    governor: str | None

    @property
    def is_fixed(self) -> bool:
        """Whether it stays where it is, whatever the load; ``jetson_clocks`` leaves no range."""
        has_no_range = self.least_hz is not None and self.least_hz == self.most_hz
        return has_no_range or self.governor in (None, "performance")


@dataclass(frozen=True)
class DeviceState:
    """What the machine says of itself at one moment; empty where it does not say.

    Attributes:
        load_1min: processes that wanted a core, over the last minute.
        cpus: clock of each core.
        gpus: of each GPU of a Jetson.
        board: model of the board.
        l4t: release of Jetson Linux, such as ``36.4.0``.
        power_mode: a Jetson's, such as ``MAXN``.
    """

    load_1min: float | None
    cpus: list[ClockState]
    gpus: list[ClockState]
    board: str | None
    l4t: str | None
    power_mode: str | None


def read_state(root: Path = _ROOT, ask: AskNvpmodel | None = None) -> DeviceState:
    """Read it.

    Args:
        root: of the file system.
        ask: how nvpmodel is asked where its status file is not there; the program by default.
    """
    cores = _numbered(root / "sys/devices/system/cpu", "cpu")
    gpus = _gpu_devices(root / "sys/class/devfreq")
    l4t = _l4t(read_text(root / "etc/nv_tegra_release"))
    return DeviceState(
        load_1min=_load(read_text(root / "proc/loadavg")),
        cpus=_clocks([(core.name, core / "cpufreq") for core in cores], "scaling_", 1000),
        gpus=_clocks([(gpu.name, gpu) for gpu in gpus], "", 1),
        board=read_text(root / "proc/device-tree/model") or None,
        l4t=l4t,
        power_mode=_power_mode(root, ask or ask_nvpmodel) if l4t else None,
    )


def ask_nvpmodel() -> str:
    """What ``nvpmodel -q`` prints; empty where it is not there or does not answer."""
    try:
        done = subprocess.run(
            ["nvpmodel", "-q"],
            stdin=subprocess.DEVNULL,  # it must not ask for a password
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def state_warnings(before: DeviceState, after: DeviceState) -> list[str]:
    """What makes times less sure, as sentences: clocks that changed or are left to change."""
    found = []
    for what, clocks in (("CPU", before.cpus), ("GPU", before.gpus)):
        loose = dict.fromkeys(str(clock.governor) for clock in clocks if not clock.is_fixed)
        if loose:
            found.append(
                f"the governor of the {what}'s clock is {', '.join(loose)}, not performance: the "
                "clock follows the load. Fix it (on a Jetson: sudo jetson_clocks)"
            )
    for what, first, last in (
        ("CPU", before.cpus, after.cpus),
        ("GPU", before.gpus, after.gpus),
    ):
        # The fastest one: what idles beside it may be as slow as it likes.
        was, now = (max((clock.hz for clock in clocks), default=0) for clocks in (first, last))
        if was and now and abs(now - was) > _CHANGED * was:
            found.append(
                f"the clock of the {what} was {_mhz(was)} before the run and {_mhz(now)} after it"
            )
    if before.power_mode != after.power_mode:
        found.append(
            f"the power mode was {before.power_mode} before the run and {after.power_mode} after it"
        )
    return found


def _power_mode(root: Path, ask: AskNvpmodel) -> str | None:
    # The status file needs no program and no rights; both know the mode by a number.
    status = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status"))
    if status:
        modes = re.finditer(
            r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", read_text(root / "etc/nvpmodel.conf")
        )
        names = {int(mode[1]): mode[2] for mode in modes}
        return names.get(int(status[1]), f"mode {int(status[1])}")
    told = re.search(r"^NV Power Mode\s*:\s*(\S+)", ask(), re.MULTILINE)
    return told[1] if told else None


def _l4t(text: str) -> str | None:
    found = re.search(r"^#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text, re.MULTILINE)
    return f"{found[1]}.{found[2]}" if found else None


def _load(text: str) -> float | None:
    found = re.match(r"\d+\.\d+", text)
    return float(found[0]) if found else None


def _numbered(folder: Path, prefix: str) -> list[Path]:
    found = (re.fullmatch(rf"{prefix}(\d+)", path.name) for path in _listed(folder))
    return [folder / f"{prefix}{number}" for number in sorted(int(m[1]) for m in found if m)]


def _gpu_devices(folder: Path) -> list[Path]:
    return sorted(
        path for path in _listed(folder) if any(part in path.name for part in _GPU_DEVICES)
    )


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _clocks(folders: Sequence[tuple[str, Path]], prefix: str, unit_hz: int) -> list[ClockState]:
    found = []
    for name, folder in folders:
        now, least, most = (
            _integer(folder / f"{prefix}{each}_freq") for each in ("cur", "min", "max")
        )
        if now is not None:
            governor = read_text(folder / f"{prefix}governor") or None
            low, high = (None if each is None else unit_hz * each for each in (least, most))
            found.append(ClockState(name, unit_hz * now, low, high, governor))
    return found


def _integer(path: Path) -> int | None:
    text = read_text(path)
    return int(text) if text.isdecimal() else None


def _mhz(hz: int) -> str:
    return f"{hz / 1e6:,.0f} MHz"
