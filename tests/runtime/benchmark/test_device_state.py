"""What a machine says of its clocks and its power mode, on sample file trees."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.benchmark import device_state
from patchline.runtime.benchmark.device_state import (
    ClockState,
    DeviceState,
    ask_nvpmodel,
    read_state,
    state_warnings,
)

NVPMODEL_CONF = """
###########################
# POWER_MODEL DEFINITIONS #
###########################
# MAXN is the NONE power model to release all constraints
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=MODE_15W >
< POWER_MODEL ID=2 NAME=MODE_30W >
< PM_CONFIG DEFAULT=2 >
"""
RELEASE = (
    "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64, DATE: Fri Sep"
    " 13 04:36:44 UTC 2024\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n"
)
ORIN_GPU = "sys/class/devfreq/17000000.gpu"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cpu(number: int, khz: int, governor: str, least: int = 115200, most: int = 2201600) -> Any:
    folder = f"sys/devices/system/cpu/cpu{number}/cpufreq"
    return {
        f"{folder}/scaling_cur_freq": f"{khz}\n",
        f"{folder}/scaling_min_freq": f"{least}\n",
        f"{folder}/scaling_max_freq": f"{most}\n",
        f"{folder}/scaling_governor": f"{governor}\n",
    }


def jetson(root: Path, **files: str) -> Path:
    """An AGX Orin as it comes: JetPack 6.1, clocks that follow the load."""
    write(root, cpu(0, 729600, "schedutil") | cpu(10, 2201600, "schedutil"))
    write(root, cpu(2, 1190400, "schedutil"))
    tree = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "proc/loadavg": "0.42 0.31 0.20 2/812 9123\n",
        "etc/nv_tegra_release": RELEASE,
        "etc/nvpmodel.conf": NVPMODEL_CONF,
        "var/lib/nvpmodel/status": "pmode:0002",
        f"{ORIN_GPU}/cur_freq": "306000000\n",
        f"{ORIN_GPU}/min_freq": "306000000\n",
        f"{ORIN_GPU}/max_freq": "1300500000\n",
        f"{ORIN_GPU}/governor": "nvhost_podgov\n",
        "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
        "sys/devices/system/cpu/cpuidle/current_driver": "psci_idle\n",
    }
    return write(root, tree | files)


def never() -> str:
    raise AssertionError("nvpmodel was asked")


class TestRead:
    def test_a_jetson(self, tmp_path: Path) -> None:
        found = read_state(jetson(tmp_path), never)
        assert found == DeviceState(
            load_1min=0.42,
            cpus=[
                ClockState("cpu0", 729_600_000, 115_200_000, 2_201_600_000, "schedutil"),
                ClockState("cpu2", 1_190_400_000, 115_200_000, 2_201_600_000, "schedutil"),
                ClockState("cpu10", 2_201_600_000, 115_200_000, 2_201_600_000, "schedutil"),
            ],
            gpus=[
                ClockState("17000000.gpu", 306_000_000, 306_000_000, 1_300_500_000, "nvhost_podgov")
            ],
            board="NVIDIA Jetson AGX Orin Developer Kit",
            l4t="36.4.0",
            power_mode="MODE_30W",
        )

    @pytest.mark.parametrize(
        "device",
        ["17000000.gv11b", "17000000.gp10b", "57000000.gpu", "17000000.ga10b", "gpu-gpc-0"],
    )
    def test_the_gpus_of_other_boards(self, tmp_path: Path, device: str) -> None:
        write(tmp_path, {f"sys/class/devfreq/{device}/cur_freq": "1300500000"})
        (gpu,) = read_state(tmp_path, never).gpus
        assert gpu == ClockState(device, 1_300_500_000, None, None, None)

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            ("pmode:0000", "MAXN"),
            ("pmode:0001 fmode:quiet", "MODE_15W"),
            ("pmode:0007 fmode:fanNull\n", "mode 7"),
        ],
    )
    def test_power_modes_by_number(self, tmp_path: Path, status: str, expected: str) -> None:
        tree = jetson(tmp_path, **{"var/lib/nvpmodel/status": status})
        assert read_state(tree, never).power_mode == expected

    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            ("NV Power Mode: MAXN\n0\n", "MAXN"),
            ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W\n1\n", "MODE_15W"),
            ("", None),
            ("NVPM ERROR: permission denied\n", None),
        ],
    )
    def test_without_its_status_file_nvpmodel_is_asked(
        self, tmp_path: Path, told: str, expected: str | None
    ) -> None:
        tree = jetson(tmp_path)
        (tree / "var/lib/nvpmodel/status").unlink()
        assert read_state(tree, lambda: told).power_mode == expected

    def test_a_pc(self, tmp_path: Path) -> None:
        write(tmp_path, cpu(0, 4200000, "performance") | {"proc/loadavg": "12.08 1.00 1.00 1/1 1"})
        found = read_state(tmp_path, never)
        assert found.load_1min == 12.08 and len(found.cpus) == 1
        assert (found.gpus, found.board, found.l4t, found.power_mode) == ([], None, None, None)

    def test_a_machine_that_says_nothing(self, tmp_path: Path) -> None:
        assert read_state(tmp_path, never) == DeviceState(None, [], [], None, None, None)

    @pytest.mark.parametrize("text", ["", "<unknown>\n", "-1\n", "1.5\n"])
    def test_a_clock_that_is_no_number_is_left_out(self, tmp_path: Path, text: str) -> None:
        tree = jetson(tmp_path, **{f"{ORIN_GPU}/cur_freq": text})
        assert read_state(tree, never).gpus == []

    def test_a_folder_where_a_file_should_be(self, tmp_path: Path) -> None:
        tree = jetson(tmp_path)
        (tree / f"{ORIN_GPU}/governor").unlink()
        (tree / f"{ORIN_GPU}/governor").mkdir()
        assert read_state(tree, never).gpus[0].governor is None

    def test_this_machine_can_be_asked(self) -> None:
        assert read_state().load_1min is not None


class TestNvpmodel:
    def put(self, folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
        program = folder / "nvpmodel"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")

    def test_what_it_prints(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.put(tmp_path, monkeypatch, '[ "$1" = -q ] && echo "NV Power Mode: MAXN"')
        assert ask_nvpmodel() == "NV Power Mode: MAXN\n"

    def test_one_that_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.put(tmp_path, monkeypatch, "echo NV Power Mode: WRONG; exit 1")
        assert ask_nvpmodel() == ""

    def test_it_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert ask_nvpmodel() == ""

    def test_one_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def hang(*arguments: Any, **options: Any) -> None:
            assert options["stdin"] == subprocess.DEVNULL
            raise subprocess.TimeoutExpired("nvpmodel", options["timeout"])

        monkeypatch.setattr(device_state.subprocess, "run", hang)
        assert ask_nvpmodel() == ""


def clock(hz: int, governor: str | None = "performance", **limits: int) -> ClockState:
    return ClockState("cpu0", hz, limits.get("least"), limits.get("most"), governor)


STILL = DeviceState(0.1, [clock(2_000_000_000)], [clock(1_300_500_000)], None, None, "MAXN")


class TestWarnings:
    def test_nothing_changed(self) -> None:
        assert state_warnings(STILL, STILL) == []

    def test_nothing_is_known(self) -> None:
        unknown = DeviceState(None, [], [], None, None, None)
        assert state_warnings(unknown, unknown) == []

    def test_clocks_that_follow_the_load(self, tmp_path: Path) -> None:
        state = read_state(jetson(tmp_path), never)
        cpus, gpus = state_warnings(state, state)
        assert "governor of the CPU's clock is schedutil, not performance" in cpus
        assert "governor of the GPU's clock is nvhost_podgov" in gpus
        assert "sudo jetson_clocks" in cpus

    def test_jetson_clocks_leaves_the_governor_and_no_range(self) -> None:
        fixed = clock(2_201_600_000, "schedutil", least=2_201_600_000, most=2_201_600_000)
        state = replace(STILL, cpus=[fixed])
        assert fixed.is_fixed and state_warnings(state, state) == []

    @pytest.mark.parametrize(
        ("before", "after", "changed"),
        [(1000, 1050, False), (1000, 1051, True), (1000, 950, False), (1000, 949, True)],
    )
    @pytest.mark.parametrize("which", ["cpus", "gpus"])
    def test_clocks_that_changed(self, which: str, before: int, after: int, changed: bool) -> None:
        states = [replace(STILL, **{which: [clock(mhz * 1_000_000)]}) for mhz in (before, after)]
        found = state_warnings(*states)
        assert bool(found) is changed
        if changed:
            what = {"cpus": "CPU", "gpus": "GPU"}[which]
            sizes = f"{before:,} MHz before the run and {after:,} MHz after it"
            assert found == [f"the clock of the {what} was {sizes}"]

    def test_cores_that_idle_beside_the_fastest_say_nothing(self) -> None:
        busy, idle = clock(3_000_000_000), clock(800_000_000)
        first, last = replace(STILL, cpus=[busy, idle]), replace(STILL, cpus=[idle, busy])
        assert state_warnings(first, last) == []

    def test_another_power_mode(self) -> None:
        (found,) = state_warnings(STILL, replace(STILL, power_mode="MODE_15W"))
        assert found == "the power mode was MAXN before the run and MODE_15W after it"
