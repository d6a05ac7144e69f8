"""A tracker whose backend runs in a thread of its own: it may fail or hang, and stops nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from patchline.export.tracking.backend import Opening, Tell
from patchline.export.tracking.base import Pictures, Status, status_of
from patchline.export.tracking.plain import plain
from patchline.export.tracking.thinning import Thinning
from patchline.export.tracking.waiting import Call, Kind
from patchline.export.tracking.worker import Worker
from patchline.runtime.contract import external_data_path

_QUIET_S = 2.0
_MIB = 1 << 20


class BackgroundTracker:
    """Gives a backend its calls from a daemon thread, in order.

    A call that fails is told once; after three in a row nothing is tried again. What comes faster
    than it is taken is dropped, the oldest first, and the count is told at the end.

    Args:
        opening: of the backend.
        log_every: see :class:`~patchline.export.tracking.settings.TrackSettings`.
        upload_pictures: likewise.
        finish_timeout_s: likewise; a model that is uploaded adds to it.
        tell: of failures and of what was dropped.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        log_every: int,
        upload_pictures: bool,
        finish_timeout_s: float,
        tell: Tell,
    ) -> None:
        self._thinning, self._upload_pictures = Thinning(log_every), upload_pictures
        self._patience_s = finish_timeout_s - opening.exit_s
        self._seconds_per_mib = opening.seconds_per_mib
        self._is_finished = False
        self._worker = Worker(opening, tell)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Take numbers; raises and waits for nothing."""
        with self._told("numbers"):
            if kept := self._thinning.keep(values, step):
                self._give("numbers", "log", kept, step)

    def images(self, name: str, pictures: Pictures, *, step: int) -> None:
        """Take copies of pictures; raises and waits for nothing."""
        with self._told("pictures"):
            if self._upload_pictures and pictures:
                copies = {caption: np.array(picture) for caption, picture in pictures.items()}
                self._give("pictures", "images", name, copies, step)

    def config(self, values: Mapping[str, Any]) -> None:
        """Take settings; raises and waits for nothing."""
        with self._told("settings"):
            self._give("records", "config", plain(values))

    def model(self, path: Path, *, metadata: Mapping[str, Any]) -> None:
        """Take a model's path; its files are read later, so they may not change before the end."""
        with self._told("a model"):
            size_bytes, data = path.stat().st_size, external_data_path(path)
            if data.exists():
                size_bytes += data.stat().st_size
            self._patience_s += size_bytes / _MIB * self._seconds_per_mib
            self._give("records", "model", path, plain(metadata))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Take results; raises and waits for nothing."""
        with self._told("results"):
            self._give("records", "summary", plain(values))

    def finish(self, status: Status) -> None:
        """Let the backend take what waits, for as long as the settings allow, and tell the rest.

        Raises:
            KeyboardInterrupt: the wait was interrupted; what was lost is told before.
        """
        if self._is_finished:
            return
        for step, values in self._thinning.rest():
            self._give("numbers", "log", values, step)
        self._give("end", "finish", status)
        self._is_finished = True
        try:
            self._wait()
        finally:
            self._worker.leave()

    def __enter__(self) -> BackgroundTracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self.finish(status_of(kind))

    def _give(self, kind: Kind, method: str, *arguments: Any) -> None:
        if not self._is_finished:
            self._worker.give(Call(kind, method, arguments))

    def _wait(self) -> None:
        end_s = time.monotonic() + self._patience_s
        if self._worker.wait(min(_QUIET_S, self._patience_s)) or self._patience_s <= _QUIET_S:
            return
        self._worker.tell(
            f"{self._worker.name} is still writing: waiting for up to {self._patience_s:.0f} s, "
            "or until Ctrl-C"
        )
        self._worker.wait(end_s - time.monotonic())

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it was given: a training is not stopped by it
            self._worker.tell_failure(what, error)
