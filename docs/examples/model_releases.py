"""Releases of models on a device: whole folders, one of which is current.

    ROOT/releases/DIGEST/…   what an index named, checked; never changed
    ROOT/current             a link to one of them, replaced in one step
    ROOT/state.json          the release before, the one that is watched, those that are refused
    ROOT/incoming/           a release in the making

Whenever the power goes, ``current`` leads to a whole release.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from model_index import File, Index, check_together

from patchline.runtime.bank import BANK_SUFFIX
from patchline.runtime.errors import ModelError
from patchline.runtime.files import sha256_of_file


@dataclass(frozen=True)
class State:
    """``watching``: switched to, and not vouched for yet; ``is_running``: taken up by the line."""

    former: str | None = None
    watching: str | None = None
    is_running: bool = False
    refused: list[str] = field(default_factory=list)


class Releases:
    """The folder of a device. One process at a time: the caller holds a lock."""

    def __init__(self, root: Path) -> None:
        self.root, self._state = root, root / "state.json"
        self.releases, self.incoming = root / "releases", root / "incoming"
        self.releases.mkdir(parents=True, exist_ok=True)

    @property
    def current(self) -> str | None:
        """The release that ``current`` leads to."""
        link = self.root / "current"
        return link.readlink().name if link.is_symlink() else None

    @property
    def state(self) -> State:
        """Raises: ModelError: what lies on the disk is no state."""
        if not self._state.exists():
            return State()
        try:
            return _state_of(json.loads(self._state.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"{self._state} cannot be read: {error}. What runs goes on. Remove the file: what "
                "runs then counts as kept, and what was refused is forgotten"
            ) from error

    def note(self, **changes: object) -> None:
        """Change the state, whole or not at all."""
        text = json.dumps(asdict(replace(self.state, **changes)))  # type: ignore[arg-type]
        draft = self.root / ".state.json.new"
        draft.write_text(text, encoding="utf-8")
        to_disk(draft)
        draft.replace(self._state)
        to_disk(self.root)

    def bring(
        self, index: Index, get: Callable[[File, Path], None], prepare: Callable[[Path], None]
    ) -> None:
        """Have the release of an index: what the current one has too is not fetched again.

        Raises: ModelError: a file is not what the index says, or they do not belong together.
        """
        target = self.releases / index.release
        if target.is_dir():
            return
        shutil.rmtree(self.incoming, ignore_errors=True)
        self.incoming.mkdir()
        for file in index.files:
            path, here = self.incoming / file.name, self.root / "current" / file.name
            if here.is_file() and sha256_of_file(here) == file.sha256:
                shutil.copyfile(here, path)
            else:
                get(file, path)
            size, digest = path.stat().st_size, sha256_of_file(path)
            if (size, digest) != (file.bytes, file.sha256):
                raise ModelError(
                    f"{file.name} came with {size} bytes and SHA-256 {digest[:12]}…, and the index "
                    f"says {file.bytes} and {file.sha256[:12]}…. Nothing was switched"
                )
        check_together(sorted(self.incoming.iterdir()))
        # A plan goes along: run-camera and build-engine see by its record whether it still fits.
        for plan in (self.root / "current").glob("*.trt*"):
            shutil.copyfile(plan, self.incoming / plan.name)
        prepare(self.incoming)
        for path in (*self.incoming.iterdir(), self.incoming):
            to_disk(path)
        self.incoming.rename(target)
        to_disk(self.releases)

    def only_banks_differ(self, one: str, other: str) -> bool:
        """Whether two releases are alike but for bank files, which run-camera reads on SIGHUP."""
        first, second = (
            {path.name: sha256_of_file(path) for path in (self.releases / name).iterdir()}
            for name in (one, other)
        )
        changed = {name for name in first | second if first.get(name) != second.get(name)}
        return all(name.endswith(BANK_SUFFIX) for name in changed)

    def switch(self, release: str) -> None:
        """Let ``current`` lead to a release, in one step."""
        draft = self.root / ".current.new"
        draft.unlink(missing_ok=True)
        draft.symlink_to(Path("releases") / release)
        draft.replace(self.root / "current")
        to_disk(self.root)

    def forget_others(self) -> None:
        """Remove the releases that are neither current nor the one before."""
        for path in self.releases.iterdir():
            if path.name not in (self.current, self.state.former):
                shutil.rmtree(path)


def _state_of(document: dict[str, object]) -> State:
    """Raises: ValueError, TypeError: it is none."""
    found = State(**document)  # type: ignore[arg-type]
    names = [name for name in (found.former, found.watching) if name is not None]
    if not isinstance(found.refused, list) or type(found.is_running) is not bool:
        raise ValueError("'refused' or 'is_running' is of another type")
    if not all(isinstance(name, str) for name in [*names, *found.refused]):
        raise ValueError("a release has no name")
    return found


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, would be there after a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
