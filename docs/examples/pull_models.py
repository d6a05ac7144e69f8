"""Pull a line's models over HTTPS, switch to them, and back when their first frames drift.

    python pull_models.py https://models.plant/press3 --root /var/lib/patchline-models/press3 \
        --log /var/lib/patchline/press3/log.jsonl \
        --restart "systemctl restart patchline@press3" \
        --reload "systemctl reload patchline@press3"

See docs/fleet.md. Exit status: 0, or 1 where something needs a person.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from first_frames import Tail, watch
from model_releases import Releases
from model_source import Source

from patchline.runtime.decisions.drift import check_window
from patchline.runtime.errors import ConfigurationError, PatchlineError

Say = Callable[[str], None]


class Line:
    """What takes up a release and judges with it: run-camera, by its service and its log."""

    def __init__(self, restart: str, reload: str | None, log: Path, **limits: Any) -> None:
        self._restart, self._reload = _words(restart), _words(reload or restart)
        self._log, self._limits = log, limits

    def take_up(self, *, only_banks: bool) -> bool:
        """Restart or reload it; whether it runs."""
        words = self._reload if only_banks else self._restart
        return subprocess.run(words, check=False).returncode == 0

    def first_frames(self, release: Path, say: Say) -> str | None:
        """What speaks against a release that it judges with; see :func:`first_frames.watch`."""
        with contextlib.closing(Tail(self._log)) as tail:
            return watch(tail, release, say, **self._limits)


def pull(releases: Releases, source: Source, line: Line, prepare: str | None, say: Say) -> bool:
    """One round; whether all is well."""
    state, index, failure = releases.state, None, None
    try:
        index = source.index()
    except PatchlineError as error:  # what is watched goes on being watched
        failure = error
    is_newer = index is not None and index.release not in (state.watching, *state.refused)
    if (state.watching in state.refused or not is_newer) and not settle(releases, line, say):
        return False
    if index is None:
        raise failure or PatchlineError("there is no index")
    state, before = releases.state, releases.current
    if index.release in state.refused:
        say(f"{index.release} was refused here before; a newer one is waited for")
    if index.release in (before, *state.refused):
        return True
    releases.bring(index, source.get, lambda folder: _prepare(prepare, folder))
    only_banks = before is not None and releases.only_banks_differ(before, index.release)
    # A release that nobody has vouched for is no release to go back to.
    former = before if state.watching is None else state.former
    releases.note(former=former, watching=index.release, is_running=False)
    releases.switch(index.release)
    say(f"switched from {before or 'nothing'} to {index.release}")
    return settle(releases, line, say, only_banks=only_banks)


def _prepare(command: str | None, folder: Path) -> None:
    if command is not None:
        subprocess.run(_words(command), cwd=folder, check=True)


def settle(releases: Releases, line: Line, say: Say, *, only_banks: bool = False) -> bool:
    """Let the line take up what is watched, and keep it or go back; also after a power cut."""
    state = releases.state
    watching = state.watching
    if watching is None or (watching != releases.current and watching not in state.refused):
        releases.note(watching=None)  # the power went before it was switched
        return True
    problem: str | None = "it was refused"
    if watching not in state.refused:
        if not state.is_running and not line.take_up(only_banks=only_banks):
            problem = "the line does not start with it"
        else:
            releases.note(is_running=True)
            problem = line.first_frames(releases.releases / watching, say)
    if problem is None:
        releases.note(watching=None)
        releases.forget_others()
        say(f"{watching} is kept")
        return True
    return _go_back(releases, line, say, watching, problem)


def _go_back(releases: Releases, line: Line, say: Say, watching: str, problem: str) -> bool:
    former = releases.state.former
    if former is None:
        releases.note(watching=None)
        say(f"{watching}: {problem}. There is no release before it to go back to: it stays")
        return False
    # First of all: a power cut from here on goes on with the way back.
    releases.note(refused=sorted({*releases.state.refused, watching}))
    releases.switch(former)
    is_running = line.take_up(only_banks=False)
    releases.note(watching=None)
    say(f"{watching}: {problem}. Back to {former}; {watching} is not pulled again")
    if not is_running:
        say(f"the line does not start with {former} either")
    return False


def _words(command: str) -> list[str]:
    """Raises: ConfigurationError: it is none; and not after the switch."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"{command!r} is no command: {error}") from error
    if not words:
        raise ConfigurationError(f"{command!r} is no command: it is empty")
    return words


@contextlib.contextmanager
def _only_pull(root: Path) -> Iterator[None]:
    """Raises: ConfigurationError: another one is at work in the folder."""
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"another pull runs in {root}. Wait for it, or end it"
            ) from error
        yield


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True, help="the --log of run-camera")
    parser.add_argument("--restart", required=True, metavar="COMMAND")
    parser.add_argument("--reload", metavar="COMMAND", help="where only banks have changed")
    parser.add_argument("--prepare", metavar="COMMAND", help="run in a new release's folder")
    parser.add_argument("--ca", help="certificate authority (PEM)")
    parser.add_argument("--cert", help="client certificate (PEM)")
    parser.add_argument("--key", help="its key, where it is a file of its own")
    parser.add_argument("--frames", type=int, default=100, help="100 at least")
    parser.add_argument("--cameras", nargs="+", default=[], metavar="NAME", help="to wait for")
    parser.add_argument("--patience", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("--settle", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--has-mask", action="store_true", help="lower scores are no drift")
    asked = parser.parse_args()
    try:
        check_window(asked.frames)  # and not after the switch
        line = Line(
            asked.restart, asked.reload, asked.log,
            cameras=asked.cameras, count=asked.frames, watches_lower=not asked.has_mask,
            patience_s=asked.patience, settle_s=asked.settle,
        )  # fmt: skip
        releases = Releases(asked.root)
        with _only_pull(asked.root):
            source = Source(asked.url, asked.ca, asked.cert, asked.key)
            return 0 if pull(releases, source, line, asked.prepare, _say) else 1
    except (PatchlineError, OSError, subprocess.SubprocessError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
