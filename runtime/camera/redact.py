"""Camera addresses without their credentials: what may be logged, printed or published."""

from __future__ import annotations

import re

HIDDEN = "***"

# A scheme (two letters at least: C: is a drive), or user:password@ without one.
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/+|(?=[^/\\:]{2,}:[^/\\]*@)", re.IGNORECASE)
_USER_INFO = re.compile(r"^.*@", re.DOTALL)
_SECRET_KEYS = r"[^?&;=/#]*(?:pass|pwd|token|secret|key|auth|sig|cred|user|usr|login)[^?&;=/#]*="
_SECRET_IN_PATH = re.compile(rf"({_SECRET_KEYS})[^/?&]*", re.IGNORECASE)
# Of any key, because cameras call their password p, u or x. Short numbers stay: channel=2 tells
# two cameras of one recorder apart.
_QUERY_VALUE = re.compile(r"=(?!\d{1,3}(?:&|$))[^&]*")


def redact(uri: str) -> str:
    """Hide user names, passwords and tokens of a camera address.

    ``rtsp://admin:secret@cam/1?token=abc`` becomes ``rtsp://***@cam/1?token=***``. Passwords often
    hold unescaped ``@``, ``/`` or ``?``, so everything up to the *last* ``@`` goes: rather hide a
    host name than show half a password. File paths are left as they are.
    """
    address = _ADDRESS.match(uri)
    if address is None:
        return uri
    start = address.end()
    rest = _USER_INFO.sub(f"{HIDDEN}@", uri[start:])
    path, mark, query = rest.partition("?")
    path = _SECRET_IN_PATH.sub(rf"\1{HIDDEN}", path)
    if not uri.startswith("test://"):
        query = _QUERY_VALUE.sub(f"={HIDDEN}", query)
    return uri[:start] + path + mark + query
