"""Fields given on the command line, ``--set train.lr=0.002``, and how they join those of a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from patchline.runtime.errors import ConfigurationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Fields = dict[str, Any]
"""Fields of the settings by name, a dictionary for each table; not checked yet."""

_WORD = re.compile(r"(?P<name>[\w-]+(?:\.[\w-]+)*)\s*=(?P<text>.*)", re.DOTALL)
_MARKS = ('"', "'", "[", "{")


def parse_overrides(words: Sequence[str]) -> Fields:
    """``train.lr=0.002`` and such -> fields.

    A value is one of TOML (``0.002``, ``true``, ``[256, 320]``, ``"text"``); what is none, such as
    ``resnet18``, is a text as it stands.

    Raises:
        ConfigurationError: words of another form, values that are cut short, or a field with two
            values; all of them are named.
    """
    fields: Fields = {}
    problems: list[str] = []
    for word in words:
        fields = _with(word, fields, problems)
    if problems:
        raise ConfigurationError("; ".join(problems))
    return fields


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Fields:
    """Both; where a field is in both, that of ``above``. Tables are merged field by field."""
    fields = dict(below)
    for name, value in above.items():
        old = fields.get(name)
        both_tables = isinstance(old, Mapping) and isinstance(value, Mapping)
        fields[name] = merged(old, value) if both_tables else value  # type: ignore[arg-type]
    return fields


def joined(first: Mapping[str, Any], second: Mapping[str, Any]) -> Fields:
    """Both, neither above the other.

    Raises:
        ConfigurationError: a field has another value in each; all such fields are named.
    """
    both = dict(_leaves(first))
    problems = [
        f"{other} is given as {_shown(old)} and {'' if name == other else f'{name} '}as "
        f"{_shown(value)}: leave one of them out"
        for name, value in _leaves(second)
        for other, old in both.items()
        if _is_same_field(name, other) and (name != other or _plain(value) != _plain(old))
    ]
    if problems:
        raise ConfigurationError("; ".join(problems))
    return merged(first, second)


def _with(word: str, fields: Fields, problems: list[str]) -> Fields:
    try:
        return joined(fields, _parse(word))
    except ConfigurationError as error:
        problems.append(str(error))
    return fields


def _parse(word: str) -> Fields:
    match = _WORD.fullmatch(word.strip())
    if match is None:
        raise ConfigurationError(
            f"--set is {word!r}, expected NAME=VALUE, such as train.lr=0.002 or backbone=resnet18"
        )
    fields: Any = _value(match["name"], match["text"].strip())
    for name in reversed(match["name"].split(".")):
        fields = {name: fields}
    return dict(fields)


def _value(name: str, text: str) -> Any:
    if not text:
        raise ConfigurationError(f'--set {name}= has no value; an empty text is {name}=""')
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text.startswith(_MARKS):
            raise ConfigurationError(f"--set {name}={text} is no TOML value: {error}") from error
        return text
    return found["value"] if found.keys() == {"value"} else text


def _leaves(fields: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _is_same_field(name: str, other: str) -> bool:
    """Whether they are one field, or one is a table and the other in it."""
    return name == other or name.startswith(f"{other}.") or other.startswith(f"{name}.")


def _plain(value: Any) -> Any:
    """Comparable: a list as the tuple that an option gives, and true not as 1."""
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    return (isinstance(value, bool), value)


def _shown(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)
