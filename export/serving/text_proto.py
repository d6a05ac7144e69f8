"""Protocol buffers as text, as ``config.pbtxt`` is written (protobuf's text format)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]
"""Field name -> text (quoted), :class:`Word` (not quoted), integer, truth value, message, or a list
of one of these: a repeated field."""

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_INDENT = "  "


class Word(str):
    """The name of an enum's value, which stands without quotes."""

    __slots__ = ()


def text_of(message: Message) -> str:
    """The message in text, a field per line, with a newline at the end."""
    return "".join(f"{line}\n" for line in _lines(message))


def quoted(text: str) -> str:
    """A text as a literal; what is not printable ASCII becomes octal bytes of UTF-8.

    Raises:
        UnicodeEncodeError: half of a surrogate pair, which no UTF-8 holds.
    """
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if " " <= character <= "~":
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode())


def _lines(message: Message) -> list[str]:
    return [line for name, value in message.items() for line in _field(name, value)]


def _field(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return _nested(name, value)
    if not isinstance(value, list):
        return [f"{name}: {_scalar(value)}"]
    if value and isinstance(value[0], Mapping):
        return [line for item in value for line in _nested(name, item)]
    return [f"{name}: [{', '.join(map(_scalar, value))}]"]


def _nested(name: str, message: Message) -> list[str]:
    inside = _lines(message)
    if len(inside) == 1:
        return [f"{name} {{ {inside[0]} }}"]
    return [f"{name} {{", *(_INDENT + line for line in inside), "}"]


def _scalar(value: str | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        return quoted(value)
    return str(value)
