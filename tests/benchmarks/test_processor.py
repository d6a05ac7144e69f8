"""What tells two processors of one name apart."""

from __future__ import annotations

import pytest

from patchline.benchmarks.processor import instruction_sets

X86 = """processor\t: 0
model name\t: AMD EPYC
flags\t\t: fpu sse2 fma avx f16c avx2 hypervisor avx512_vnni amx_bf16 smep vmx
bugs\t\t: avx_is_no_bug

processor\t: 1
flags\t\t: fpu avx10
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd crc32 asimddp sve i8mm bf16\nCPU part\t: 0xd42\n"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (X86, ["amx_bf16", "avx", "avx2", "avx512_vnni", "f16c", "fma"]),
        (ARM, ["asimd", "asimddp", "bf16", "i8mm", "sve"]),
        ("flags\t:\n", []),
        ("", []),
    ],
)
def test_vector_instructions_of_the_first_processor(info: str, expected: list[str]) -> None:
    assert instruction_sets(info) == expected
