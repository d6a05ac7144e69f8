"""What the thread that sends over MQTT is told: by the line, and by paho's callbacks."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Signal:
    """What the thread that sends is told by others."""

    kind: str
    topic: str = ""
    payload: bytes = b""
    mid: int = 0
    sentence: str = ""


class Signals:
    """Word that is left for the thread that sends.

    Args:
        client: paho's; its callbacks are set. They run in its thread, some of them within its
            locks: they only leave word.
        unreachable: what is said where no connection comes about; paho does not say why.
    """

    def __init__(self, client: Any, unreachable: str) -> None:
        self._unreachable = unreachable
        self._queue: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_publish = self._on_disconnect, self._on_publish

    @property
    def is_empty(self) -> bool:
        """Whether everything was taken."""
        return self._queue.empty()

    def put(self, signal: Signal) -> None:
        """Leave word; from any thread, never blocks."""
        self._queue.put(signal)

    def take(self, timeout_s: float) -> Signal:
        """The next one; ``tick`` where none comes in time."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return Signal("tick")

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.put(Signal("lost", sentence=f"refuses the connection: {reason}"))
        else:
            self.put(Signal("connected"))

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        self.put(Signal("lost", sentence=self._unreachable))

    def _on_disconnect(
        self, client: Any, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        self.put(Signal("lost", sentence="has ended the connection, or does not answer"))

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self.put(Signal("acknowledged", mid=mid))
