"""What systemd is told: ready, status, reloading, alive, stopping (``man 3 sd_notify``)."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

from patchline.runtime.clock import SYSTEM_CLOCK, Clock

_JOIN_S = 2.0
_LONGEST_STATUS = 500
_LOG = logging.getLogger(__name__)


class Systemd:
    """The service manager that started this process; all calls do nothing where there is none.

    A message that cannot be sent is a warning once: the inspection goes on without it.

    Args:
        environment: holds ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.
        clock: for the pace of the signs of life.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._clock = clock
        self._has_warned = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.watchdog_s = _watchdog_s(environment)
        """Seconds without a sign of life after which systemd ends the process, if it does."""

    @property
    def is_there(self) -> bool:
        """Whether the process was started by systemd with ``Type=notify``."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """The line runs, or goes on after a reload."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; it must hold no credentials."""
        self._send(*_status(text))

    def reloading(self) -> None:
        """The settings are being read again; :meth:`ready` ends it."""
        # systemd compares it with its own clock, so no injected one will do.
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """The line ends on purpose."""
        self._send("STOPPING=1")

    def watch(self, is_healthy: Callable[[], bool]) -> None:
        """Send signs of life while ``is_healthy``, twice as often as systemd wants them.

        Does nothing where the unit has no ``WatchdogSec``.
        """
        if self._address is None or self.watchdog_s is None or self._thread is not None:
            return
        arguments = (is_healthy, self.watchdog_s / 2)
        self._thread = threading.Thread(
            target=self._watch, args=arguments, name="systemd", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Send no more signs of life. A second call does nothing."""
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def _watch(self, is_healthy: Callable[[], bool], every_s: float) -> None:
        while True:
            is_alive = is_healthy()
            if is_alive:
                self._send("WATCHDOG=1")
            # A stage that came back in time is told of in time.
            if self._clock.wait(self._stop, every_s if is_alive else every_s / 5):
                return

    def _send(self, *assignments: str) -> None:
        if self._address is None or not assignments:
            return
        message = "\n".join(assignments).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1.0)  # a manager that does not read must not stop the line
                sender.sendto(message, self._address)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                _LOG.warning("systemd cannot be told %s: %s", assignments[0], error)


def _address(path: str) -> str | None:
    """The socket's address: a path, or ``@name`` in Linux's abstract namespace."""
    if path.startswith("/"):
        return path
    if path.startswith("@"):
        return "\0" + path[1:]
    if path:
        _LOG.warning("NOTIFY_SOCKET is %r, expected /path or @name: systemd is told nothing", path)
    return None


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    # A child inherits the variables; they are meant for the process that systemd started.
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
        return microseconds / 1e6 if microseconds > 0 else None
    return None


def _status(text: str) -> list[str]:
    # A line break would begin another assignment.
    return [f"STATUS={' '.join(text.split())[:_LONGEST_STATUS]}"] if text else []
