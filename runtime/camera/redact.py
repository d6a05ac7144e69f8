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

# Of a pipeline: the value of a property, quoted or not, up to the end if a quote is left open.
_VALUE = r"""(?:"(?:\\.|[^"\\])*(?:"|$)|'(?:\\.|[^'\\])*(?:'|$)|\\.|[^\s"'\\])*"""
_SECRET_PROPERTY = re.compile(
    r"([\w-]*(?:pass|pwd|pw|token|secret|key|auth|sig|cred|user|usr|login|location|uri|url|proxy|"
    rf"header|cookie|structure|settings)[\w-]*\s*=\s*){_VALUE}",
    re.IGNORECASE | re.DOTALL,
)


def redact(uri: str) -> str:
    """Hide user names, passwords and tokens of a camera address.

    ``rtsp://admin:secret@cam/1?token=abc`` becomes ``rtsp://***@cam/1?token=***``. Passwords often
    hold unescaped ``@``, ``/`` or ``?``, so everything up to the *last* ``@`` goes: rather hide a
    host name than show half a password. Of a ``gst://`` pipeline the addresses go, and the values
    of properties that may be secret. File paths are left as they are.
    """
    address = _ADDRESS.match(uri)
    if address is None:
        return uri
    start = address.end()
    if uri[:start].lower().startswith("gst:"):
        return uri[:start] + _redact_pipeline(uri[start:])
    rest = _USER_INFO.sub(f"{HIDDEN}@", uri[start:])
    path, mark, query = rest.partition("?")
    path = _SECRET_IN_PATH.sub(rf"\1{HIDDEN}", path)
    if not uri.startswith("test://"):
        query = _QUERY_VALUE.sub(f"={HIDDEN}", query)
    return uri[:start] + path + mark + query


def _redact_pipeline(text: str) -> str:
    shown = _SECRET_PROPERTY.sub(rf"\1{HIDDEN}", text)
    # Whatever else holds an address with a password, in a property or a script of its own.
    return _USER_INFO.sub(f"{HIDDEN}@", shown)
