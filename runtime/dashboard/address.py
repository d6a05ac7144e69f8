"""Where the dashboard listens, and which ``Host`` and ``Origin`` of a browser belong there."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from patchline.runtime.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8765

_EXPECTED = "expected PORT or HOST:PORT, such as 8765, 0.0.0.0:8765 or [::1]:8765"
_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]+):)?(?P<port>\d{1,5})")


def parse_address(text: str, what: str) -> tuple[str, int]:
    """Read ``[HOST:]PORT``; without a host it is this machine alone.

    Args:
        text: as above.
        what: the option, for messages.

    Returns:
        Host without brackets, and port, 0 (any free one) to 65535.

    Raises:
        ConfigurationError: it is not of that form.
    """
    found = _ADDRESS.fullmatch(text.strip())
    if found is None or int(found["port"]) > 65535:
        raise ConfigurationError(f"{what} {text}: {_EXPECTED}")
    return (found["host"] or LOOPBACK).strip("[]"), int(found["port"])


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach ``host``."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(header: str) -> str:
    """The host of a ``Host`` header, without port and brackets; empty where it is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def is_same_origin(origin: str, host: str) -> bool:
    """Whether an ``Origin`` is the page that the ``Host`` of the same request serves.

    The scheme is not compared: behind a proxy that ends TLS the page is https, and we are http.
    """
    scheme, mark, rest = origin.partition("://")
    return bool(mark) and scheme in ("http", "https") and rest.lower() == host.lower()
