"""What a node of a cluster says of itself: its versions, its code, and the folders it sees."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import platform
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

_CODE = ("runtime", "calibration", "export")
"""The parts of Patchline that compute; benchmarks do not."""


@dataclass(frozen=True)
class Facts:
    """What one machine says of itself.

    Attributes:
        host: its name.
        versions: by module, ``MAJOR.MINOR`` alone except of ``patchline``; ``None``: not there.
        source_sha256: over the code of Patchline.
        missing: of the paths that were asked for, those that it does not see.
        token: content of the file that was asked for; ``None`` where it is not seen.
    """

    host: str
    versions: dict[str, str | None] = field(default_factory=dict)
    source_sha256: str = ""
    missing: tuple[str, ...] = ()
    token: str | None = None


def gather_facts(modules: Sequence[str], paths: Sequence[str], token: str | None) -> Facts:
    """What this machine has to say.

    Args:
        modules: whose versions are asked for, besides Python's and Patchline's.
        paths: files and folders that should be there.
        token: a file whose content is asked for.
    """
    versions = module_versions(modules)
    own = {"patchline": _version("patchline"), "python": _minor(platform.python_version())}
    return Facts(
        host=socket.gethostname(),
        versions={**own, **versions},
        source_sha256=source_digest(),
        missing=tuple(path for path in paths if not Path(path).exists()),
        token=None if token is None else _content(Path(token)),
    )


@functools.cache
def source_digest() -> str:
    """SHA-256 over the names and contents of Patchline's modules on this machine."""
    import patchline

    digest = hashlib.sha256()
    for root in sorted(map(Path, patchline.__path__)):
        for part in _CODE:
            for file in sorted((root / part).rglob("*.py")):
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"{file.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def module_versions(names: Sequence[str]) -> dict[str, str | None]:
    """``MAJOR.MINOR`` of modules, whatever package they are from; ``None``: not there.

    ``onnxruntime`` is of ``onnxruntime-gpu`` as well, ``cv2`` of four packages and of Debian's.
    Where several have put files into a module, all of their versions are named.
    """
    owners = packages_distributions() if names else {}
    return {name: _module_version(name, owners.get(name, ())) for name in names}


def _module_version(name: str, owners: Sequence[str]) -> str | None:
    if owners:
        return " and ".join(sorted({_minor(version(owner)) or "" for owner in owners}))
    if importlib.util.find_spec(name) is None:
        return None
    return _minor(str(getattr(importlib.import_module(name), "__version__", "unknown")))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _minor(text: str | None) -> str | None:
    return None if text is None else ".".join(text.split(".")[:2])


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
