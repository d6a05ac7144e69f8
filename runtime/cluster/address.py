"""Where a Ray cluster is: ``auto``, ``local``, ``HOST:PORT`` or ``ray://HOST:PORT`` (issue 9)."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from patchline.runtime.errors import ClusterError, ConfigurationError

AUTO = "auto"
LOCAL = "local"

CLIENT = "ray://"
"""How the address of a cluster begins that this machine is no node of."""

_FORM = re.compile(
    r"(?P<scheme>ray://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})"
)
_LARGEST_PORT = 65535


@dataclass(frozen=True)
class Address:
    """Where a cluster listens.

    Attributes:
        host: name or number, without brackets.
        port: 1 to 65535.
        is_client: whether Ray's client is spoken there, for machines that are no node.
    """

    host: str
    port: int
    is_client: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{CLIENT if self.is_client else ''}{host}:{self.port}"


def parse_address(text: str) -> Address:
    """``host:6379`` or ``ray://host:10001``.

    Raises:
        ConfigurationError: another form, or no such port.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None or not 0 < int(match["port"]) <= _LARGEST_PORT:
        raise ConfigurationError(
            f"--ray is {text!r}, expected auto, local, HOST:PORT (such as 10.0.0.5:6379) or "
            "ray://HOST:PORT (such as ray://10.0.0.5:10001)"
        )
    return Address(match["host"].strip("[]"), int(match["port"]), match["scheme"] is not None)


def running_address() -> Address:
    """The cluster that ``auto`` means: of ``RAY_ADDRESS``, or the last one started on this machine.

    Raises:
        ClusterError: there is none.
        ConfigurationError: ``RAY_ADDRESS`` is no address.
    """
    named = os.environ.get("RAY_ADDRESS", "").strip()
    if named and named != AUTO:
        return _of_environment(named)
    try:
        noted = _note().read_text(encoding="utf-8").strip()
    except OSError:
        noted = ""
    if not noted:
        raise ClusterError(
            "--ray auto finds no Ray cluster: RAY_ADDRESS is not set, and none was started on "
            "this machine. Start one (ray start --head), give its address, or take --ray local "
            "for one of this call's own"
        )
    return parse_address(noted)


def _of_environment(named: str) -> Address:
    try:
        return parse_address(named)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"RAY_ADDRESS is {named!r}, expected HOST:PORT or ray://HOST:PORT"
        ) from error


def _note() -> Path:
    """Where ``ray start`` notes the address of its cluster."""
    # As Ray does it: its own variable, then the system's, and no other way.
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    return Path(folder) / "ray" / "ray_current_cluster"
