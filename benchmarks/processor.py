"""What a processor computes with: virtual machines hide its name, but not its instructions."""

from __future__ import annotations

import re

_VECTOR = re.compile(r"(?:avx|fma|amx|asimd|sve)\w*|sme\d?|f16c|neon|bf16|i8mm|\w+_vnni")


def instruction_sets(info: str) -> list[str]:
    """Instruction sets for vectors and matrices, as the system names them, sorted.

    Args:
        info: text of ``/proc/cpuinfo``; of its processors the first one tells.
    """
    found = re.search(r"^(?:flags|Features)[ \t]*:(.*)$", info, re.MULTILINE)
    return (
        sorted(name for name in set(found[1].split()) if _VECTOR.fullmatch(name)) if found else []
    )
