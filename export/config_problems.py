"""What is wrong with fields of the settings, a phrase each, so that all of it is said at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from patchline.export.config_train import DISTILLATION

OF_A_BANK = (
    *("coreset_ratio", "coreset", "coreset_delta", "coreset_shards"),
    *("neighbors", "bank", "search"),
)
"""Fields of a method with a memory bank."""

_CLOSE = 0.75
_UNKNOWN = "extra_forbidden"
_OWN_CHECK = "value_error"


def field_problems(error: ValidationError, settings: type[BaseModel]) -> Iterator[str]:
    """Each field that is unknown or ill-typed, by its dotted name.

    Args:
        error: what pydantic says.
        settings: the class that was asked for; its fields are those to choose from.
    """
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == _UNKNOWN:
            yield f"{name}: no such field{_suggestion(name, settings)}, got {item['input']!r}"
        elif item["type"] == _OWN_CHECK:  # of a whole table, and it names the values itself
            yield f"{name}: {item['ctx']['error']}"
        else:
            yield f"{name}: {item['msg'].lower()}, got {item['input']!r}"


def misplaced_fields(fields: Mapping[str, Any]) -> Iterator[str]:
    """Fields that were given and that the method has no use for.

    Args:
        fields: by name, not checked yet.
    """
    method = fields.get("method")
    if method != DISTILLATION:
        if "train" in fields:
            yield (
                f"{_listed(_names_in(fields['train']))} of a training, which only {DISTILLATION} "
                f'has: add method = "{DISTILLATION}" (--method), or leave the table train out'
            )
        return
    if "score" in fields:
        yield f"score cannot be chosen, since {DISTILLATION} scores by cosine: leave it out"
    given = [name for name in OF_A_BANK if name in fields]
    if given:
        yield (
            f"{_listed(given)} of a memory bank, and {DISTILLATION} has none: there is no bank to "
            "keep or search, so leave that out"
        )
    if fields.get("precision") == "int8":
        yield (
            f"precision is 'int8', and {DISTILLATION} is exported in fp32 or fp16: give one of "
            "these"
        )


def dotted_names(settings: type[BaseModel]) -> Iterator[str]:
    """Names of all fields, those of a table as ``table.field``."""
    for name, field in settings.model_fields.items():
        yield name
        table = field.annotation
        if isinstance(table, type) and issubclass(table, BaseModel):
            yield from (f"{name}.{inner}" for inner in dotted_names(table))


def _suggestion(name: str, settings: type[BaseModel]) -> str:
    """The field that was probably meant; in another table too, where its own name is close."""
    by_last = {known.rpartition(".")[2]: known for known in dotted_names(settings)}
    last = name.rpartition(".")[2].replace("-", "_")
    close = difflib.get_close_matches(last, by_last, 1, _CLOSE)
    return f" (did you mean {by_last[close[0]]}?)" if close else ""


def _names_in(table: Any) -> list[str]:
    names = [f"train.{name}" for name in table] if isinstance(table, Mapping) else []
    return names or ["train"]


def _listed(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last} are" if first else f"{last} is"
