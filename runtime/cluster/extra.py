"""Ray, for who has it: an optional package on both sides."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from patchline.runtime.errors import MissingExtraError


def import_ray() -> ModuleType:
    """The module ``ray``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(_missing("--ray needs ray")) from error
    module: ModuleType = ray
    return module


def check_client() -> None:
    """Refuse an address ``ray://`` where Ray's client cannot be used.

    Raises:
        MissingExtraError: what it speaks through is not installed.
    """
    if importlib.util.find_spec("grpc") is None:
        raise MissingExtraError(_missing("an address ray://HOST:PORT needs grpcio"))


def _missing(what: str) -> str:
    return f'{what}, which is not installed. Install it with: pip install "patchline[ray]"'
