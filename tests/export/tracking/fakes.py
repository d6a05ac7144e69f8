"""Backends that remember, raise or never return, and a tracker in front of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from patchline.export.tracking.backend import Opening
from patchline.export.tracking.background import BackgroundTracker


class Remembering:
    """Remembers its calls."""

    rescue = "Look into the drawer."

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., None]:
        def remember(*arguments: Any) -> None:
            self.threads.add(threading.current_thread().name)
            self.do(name, *arguments)
            self.calls.append((name, *arguments))

        return remember

    def do(self, name: str, *arguments: Any) -> None:
        """To be replaced."""


class Raising(Remembering):
    """Raises at the given methods, so many times."""

    def __init__(self, error: BaseException, *methods: str, times: int = 1000) -> None:
        super().__init__()
        self._error, self._methods, self._times = error, methods, times

    def do(self, name: str, *arguments: Any) -> None:
        if name in self._methods and self._times:
            self._times -= 1
            raise self._error


class Stuck(Remembering):
    """Never returns from a call of the given method, until it is let go."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self._method = method
        self.is_in, self.let_go = threading.Event(), threading.Event()

    def do(self, name: str, *arguments: Any) -> None:
        if name == self._method:
            self.is_in.set()
            self.let_go.wait(60)


class Told(list[str]):
    """What a tracker told."""

    def __call__(self, sentence: str) -> None:
        self.append(sentence)


def tracker_of(
    backend: Any,
    told: Callable[[str], object],
    *,
    log_every: int = 1,
    upload_pictures: bool = True,
    finish_timeout_s: float = 20.0,
    **opening: Any,
) -> BackgroundTracker:
    """A tracker before a backend, or before a function that makes one."""
    opens = backend if callable(backend) else lambda: backend
    return BackgroundTracker(
        Opening("The diary", opens, **opening),
        log_every=log_every,
        upload_pictures=upload_pictures,
        finish_timeout_s=finish_timeout_s,
        tell=told,
    )


def model_file(folder: Path, size: int = 5) -> Path:
    """A file that stands for a model, with its manifest."""
    path = folder / "lamp.onnx"
    path.write_bytes(b"x" * size)
    path.with_suffix(".json").write_text("{}", encoding="utf-8")
    return path
