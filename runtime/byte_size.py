"""Sizes in bytes as people write them: ``4G``, ``512M``."""

from __future__ import annotations

import re

from patchline.runtime.errors import ConfigurationError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_bytes(text: str, what: str = "memory budget") -> int:
    """``4G``, ``512M``, ``1.5GiB`` or a plain number of bytes.

    Args:
        text: as above.
        what: the setting, for messages.

    Raises:
        ConfigurationError: another form.
    """
    number, unit = r"(\d{1,18}(?:\.\d+)?)", r"([KMGT]?)(?:i?B)?"
    match = re.fullmatch(rf"{number}\s*{unit}", text.strip(), re.IGNORECASE)
    if match is None:
        raise ConfigurationError(f"{what} is {text!r}, expected for example 4G or 512M")
    return int(float(match[1]) * _UNITS[match[2].upper()])
