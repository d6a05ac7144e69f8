"""Names and versions of a machine, on sample file trees."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path

import pytest

from patchline.runtime.benchmark.machine import describe_machine

from .test_device_state import write

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
model\t\t: 17
model name\t: AMD EPYC 9354 32-Core Processor
processor\t: 1
model name\t: AMD EPYC 9354 32-Core Processor
"""
ORIN = """processor\t: 0
model name\t: ARMv8 Processor rev 1 (v8l)
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd42
processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd42
"""
TX2 = ORIN.replace("0xd42", "0xd07", 1) + "CPU implementer\t: 0x4e\nCPU part\t: 0x003\n"
UNKNOWN_ARM = "CPU implementer\t: 0x61\nCPU part\t: 0x022\n"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (X86, "AMD EPYC 9354 32-Core Processor"),
        (ORIN, "Cortex-A78AE"),
        (TX2, "Cortex-A57 + Cortex-A78AE + Denver 2"),
        (UNKNOWN_ARM, "ARM 0x61/0x022"),
    ],
)
def test_processors_have_names(tmp_path: Path, info: str, expected: str) -> None:
    assert describe_machine(write(tmp_path, {"proc/cpuinfo": info})).cpu == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC\n"
            "GCC version:  gcc version 12.3.0\n",
            "550.54.15",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n",
            "540.4.0",
        ),
        ("something else 1.2.3", None),
    ],
)
def test_the_driver(tmp_path: Path, text: str, expected: str | None) -> None:
    assert (
        describe_machine(write(tmp_path, {"proc/driver/nvidia/version": text})).driver == expected
    )


def test_gpus_and_memory(tmp_path: Path) -> None:
    folder = "proc/driver/nvidia/gpus"
    write(
        tmp_path,
        {
            f"{folder}/0000:01:00.0/information": "Model: \t\t NVIDIA H200\nIRQ:   \t\t 92\n",
            f"{folder}/0000:02:00.0/information": "Model: \t\t NVIDIA L4\n",
            f"{folder}/0000:03:00.0/registry": "",
            "proc/meminfo": "MemTotal:       24684084 kB\nMemFree: 1 kB\n",
        },
    )
    found = describe_machine(tmp_path)
    assert found.gpus == ["NVIDIA H200", "NVIDIA L4"]
    assert found.memory_bytes == 24684084 * 1024


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    found = describe_machine(tmp_path)
    assert (found.gpus, found.driver, found.memory_bytes) == ([], None, None)
    assert found.cpu


def test_this_machine() -> None:
    found = describe_machine()
    assert 1 <= found.usable_cores <= found.cores
    assert found.packages["patchline"] == version("patchline")
    assert found.packages["numpy"] == version("numpy")
    json.dumps(dataclasses.asdict(found), allow_nan=False)
