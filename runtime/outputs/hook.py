"""``--output-hook package.module:factory``: an output of the user's own."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from patchline.runtime.errors import ConfigurationError, PatchlineError
from patchline.runtime.outputs.base import Output

_SPEC = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def load_hook(spec: str, options: Mapping[str, str] | None = None) -> Output:
    """Import a module, and make an output by calling what is named after the colon.

    Args:
        spec: ``package.module:factory``; the module is found as Python finds modules
            (``PYTHONPATH``, or installed in the same environment).
        options: the factory's keyword arguments, as text.

    Returns:
        The output, with ``name``, ``write``, ``notify`` and ``close`` checked to be there.

    Raises:
        ConfigurationError: another form, no such module or factory, a factory that raises, or
            what it makes is no output.
        PatchlineError: raised by the factory itself.
    """
    factory = _factory(spec)
    try:
        output = factory(**dict(options or {}))
    except PatchlineError:
        raise
    except Exception as error:
        # The values may be passwords; the exception's own text is the user's own code speaking.
        raise ConfigurationError(
            f"--output-hook {spec} failed with {type(error).__name__}: {error}"
        ) from error
    missing = [part for part in ("write", "notify", "close") if not _has_call(output, part)]
    if missing or not isinstance(getattr(output, "name", None), str):
        raise ConfigurationError(
            f"--output-hook {spec} made a {type(output).__name__} without "
            f"{', '.join(missing or ['name'])}: expected an output as in docs/outputs.md"
        )
    return cast(Output, output)


def parse_options(texts: list[str]) -> dict[str, str]:
    """``["host=10.0.0.5", "coil=3"]`` as keyword arguments.

    Raises:
        ConfigurationError: another form, or a name twice.
    """
    options: dict[str, str] = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not mark or not name.isidentifier() or name in options:
            raise ConfigurationError(
                f"--output-option {name}…: expected NAME=VALUE, each name once"
            )
        options[name] = value
    return options


def _factory(spec: str) -> Callable[..., Any]:
    if not _SPEC.fullmatch(spec):
        raise ConfigurationError(
            f"--output-hook {spec} cannot be: expected package.module:factory, such as "
            "factory_hooks.plc:make_relay"
        )
    module_name, _, name = spec.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigurationError(
            f"--output-hook {spec}: the module {module_name} cannot be imported "
            f"({type(error).__name__}: {error}). Is its folder in PYTHONPATH?"
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ConfigurationError(
            f"--output-hook {spec}: {module_name} has no function or class {name}"
        )
    return cast(Callable[..., Any], factory)


def _has_call(output: Any, name: str) -> bool:
    return callable(getattr(output, name, None))
