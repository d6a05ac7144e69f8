"""``--mqtt``: events with QoS 1 out of an outbox, states, the process's own status, verdicts.

A message leaves the outbox when the broker has acknowledged it. While a connection is lost, paho
(2.x) keeps what it was given and sends it again itself, marked as a duplicate, so within a process
nothing is handed to it twice; what a process leaves behind is sent by the next one, under the same
``message_id``.
"""

from __future__ import annotations

import queue
import re
import socket
import threading
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.decisions.event import Event, Notice
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.outputs.base import Tell, sentence_of, surely
from patchline.runtime.outputs.documents import (
    event_document,
    state_document,
    to_json,
    verdict_document,
)
from patchline.runtime.outputs.mqtt_address import MqttAddress, parse_mqtt
from patchline.runtime.outputs.mqtt_client import make_client
from patchline.runtime.outputs.outbox import Message, Outbox
from patchline.runtime.verdict import JudgedFrame

MOST_IN_FLIGHT = 20
MOST_FRAMES_UNSENT = 100
"""Verdicts that wait for the network; further ones are not sent."""

_ACK_S = 60.0
_TICK_S = 0.5
_QUEUE_SIZE = 15  # paho's MQTT_ERR_QUEUE_SIZE
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class _Signal:
    """What the thread that sends is told by others."""

    kind: str
    topic: str = ""
    payload: bytes = b""
    mid: int = 0
    sentence: str = ""


class MqttOutput:
    """Publishes ``CAMERA/event``, ``CAMERA/state``, ``CAMERA/frame``, ``status`` of a line.

    The topics begin with ``PREFIX/LINE/``. Events are kept on the disk until the broker has
    acknowledged them (QoS 1). States are retained, and sent again at each connection. ``status``
    is ``online`` or, by the last will, ``offline``.

    Args:
        url: of the broker, see :func:`parse_mqtt`.
        line: name of the line: letters, digits, ``_``, ``.`` and ``-``.
        outbox: where events wait; closed with this.
        clock: for the patience with a broker that does not acknowledge.
        on_failure: told of lost and refused connections, once per bout, and of recoveries.
        first_retry_s: until the first attempt to connect again; doubling to a minute.
        closing_s: how long ``close`` waits for acknowledgements.

    Attributes:
        skipped_frames: verdicts that were not sent, for want of a connection.

    Raises:
        ConfigurationError: an address or a name that cannot be, certificates that cannot be read.
        MissingExtraError: paho-mqtt is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        line: str,
        outbox: Outbox,
        clock: Clock = SYSTEM_CLOCK,
        on_failure: Tell = lambda name, sentence: None,
        first_retry_s: float = 1.0,
        closing_s: float = 5.0,
    ) -> None:
        address = parse_mqtt(url)
        if not _NAME.fullmatch(line):
            raise ConfigurationError(
                f"the line is called {line!r}, expected letters, digits, _, . and -: it is part of "
                "the MQTT topics"
            )
        self.name = str(address)
        self.ignores_frames = not address.has_frames
        self.skipped_frames = 0
        self._topic = f"{address.prefix}/{line}"
        doubt = ", or its certificate is not trusted" if address.is_encrypted else ""
        self._unreachable = f"cannot be reached{doubt}"  # paho does not say why
        self._outbox = outbox
        self._clock = clock
        self._tell = surely(on_failure)
        self._closing_s = closing_s
        self._signals: queue.SimpleQueue[_Signal] = queue.SimpleQueue()
        self._in_flight: dict[int, tuple[int, float]] = {}
        self._acknowledged: deque[int] = deque()
        self._last_number = 0
        self._states: dict[str, bytes] = {}
        self._unsent: deque[Any] = deque()
        self._is_connected = self._is_told = self._is_ack_told = self._is_closed = False
        self._is_box_told = self._is_lost = False
        self._client = self._make_client(address, line, first_retry_s)
        self._thread = threading.Thread(target=self._run, name="MQTT sender", daemon=True)
        self._thread.start()
        self._client.connect_async(address.host, address.port, address.keepalive_s)
        self._client.loop_start()

    @property
    def is_connected(self) -> bool:
        """Whether the broker has let it in."""
        return self._is_connected

    @property
    def waiting(self) -> int:
        """Events that the broker has not acknowledged."""
        return len(self._outbox)

    def write(self, judged: JudgedFrame) -> None:
        """Publish a verdict, where that is asked for; never kept for later."""
        if self.ignores_frames:
            return
        while self._unsent and self._unsent[0].is_published():
            self._unsent.popleft()
        if not self._is_connected or len(self._unsent) >= MOST_FRAMES_UNSENT:
            self.skipped_frames += 1
            return
        topic = f"{self._topic}/{_checked(judged.verdict.camera)}/frame"
        info = self._client.publish(topic, to_json(verdict_document(judged.verdict)), qos=0)
        if info.rc == 0:
            self._unsent.append(info)
        else:
            self.skipped_frames += 1

    def notify(self, notice: Notice) -> None:
        """Keep an event until it is acknowledged; publish a state.

        Raises:
            WriteError: the outbox cannot be written, or a camera's name cannot be in a topic.
        """
        topic = f"{self._topic}/{_checked(notice.camera)}"
        if not isinstance(notice, Event):
            payload = to_json(state_document(notice)).encode()
            self._signals.put(_Signal("state", f"{topic}/state", payload))
            return
        document = to_json(event_document(notice)).encode()
        if self._outbox.put(notice.message_id, f"{topic}/event", document):
            self._signals.put(_Signal("full"))
        self._signals.put(_Signal("event"))

    def close(self) -> None:
        """Wait a little for acknowledgements, say ``offline``, and end; bounded in time.

        What is not acknowledged stays in the outbox for the next start, and is told.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._signals.put(_Signal("close"))
        self._thread.join(self._closing_s + 5.0)
        stopping = threading.Thread(target=self._client.loop_stop, name="MQTT stop", daemon=True)
        stopping.start()
        for _ in range(20):
            stopping.join(0.1)
            if not stopping.is_alive():
                break
            self._client.disconnect()  # it may have been connecting when it was told first
        left = len(self._outbox)
        if left:
            self._tell(self.name, f"{left} events are not acknowledged; the next start sends them")
        if not self._thread.is_alive():
            self._outbox.close()

    def _make_client(self, address: MqttAddress, line: str, first_retry_s: float) -> Any:
        made_up = f"patchline-{line}-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        client = make_client(address, address.client_id or made_up, first_retry_s)
        client.will_set(f"{self._topic}/status", "offline", qos=1, retain=True)
        client.max_inflight_messages_set(MOST_IN_FLIGHT)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    # These run in paho's thread, some of them within its locks: they only leave word.

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._signals.put(_Signal("lost", sentence=f"refuses the connection: {reason}"))
        else:
            self._signals.put(_Signal("connected"))

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        self._signals.put(_Signal("lost", sentence=self._unreachable))

    def _on_disconnect(
        self, client: Any, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        self._signals.put(_Signal("lost", sentence="has ended the connection, or does not answer"))

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self._signals.put(_Signal("acknowledged", mid=mid))

    # From here on: the thread that sends, alone.

    def _run(self) -> None:
        end_s: float | None = None
        while end_s is None or not self._is_done(end_s):
            try:
                signal = self._signals.get(timeout=_TICK_S if end_s is None else 0.05)
            except queue.Empty:
                signal = _Signal("tick")
            if signal.kind == "close":
                end_s = self._clock.monotonic() + self._closing_s
            try:
                self._take(signal)
                self._send()
            except Exception as error:  # the sender goes on, whatever it was
                self._tell_box(error)
        self._publish(f"{self._topic}/status", b"offline")
        self._client.disconnect()

    def _is_done(self, end_s: float) -> bool:
        # A short run may end before it is connected: that is waited for, a lost broker is not.
        is_all_sent = self._signals.empty() and not len(self._outbox)
        return is_all_sent or self._is_lost or self._clock.monotonic() >= end_s

    def _take(self, signal: _Signal) -> None:
        if signal.kind == "connected":
            self._begin()
        elif signal.kind == "lost":
            self._is_connected, self._is_lost = False, True
            self._tell_once(signal.sentence)
        elif signal.kind == "acknowledged" and signal.mid in self._in_flight:
            self._acknowledged.append(self._in_flight.pop(signal.mid)[0])
            self._is_ack_told = False
        elif signal.kind == "state":
            self._states[signal.topic] = signal.payload
            if self._is_connected:
                self._publish(signal.topic, signal.payload)
        elif signal.kind == "full" and self._outbox.dropped:
            self._tell_full()
        while self._acknowledged:
            self._outbox.remove(self._acknowledged[0])
            self._acknowledged.popleft()
        if not len(self._outbox):
            self._is_box_told = False

    def _begin(self) -> None:
        self._is_connected, self._is_lost = True, False
        # The broker may have forgotten what it retained, or published the last will since.
        self._publish(f"{self._topic}/status", b"online")
        for topic, payload in self._states.items():
            self._publish(topic, payload)
        now_s = self._clock.monotonic()
        self._in_flight = {mid: (number, now_s) for mid, (number, _) in self._in_flight.items()}
        if self._is_told:
            self._is_told = False
            self._tell(self.name, f"is connected again; {len(self._outbox)} events are sent now")

    def _send(self) -> None:
        while self._is_connected and len(self._in_flight) < MOST_IN_FLIGHT:
            message = self._outbox.next(self._last_number)
            if message is None or not self._hand_over(message):
                break
        self._check_acknowledgements()

    def _hand_over(self, message: Message) -> bool:
        try:
            info = self._client.publish(message.topic, message.payload, qos=1)
        except ValueError:  # of an outbox that is not ours: it will never do
            self._last_number = message.number
            raise
        if info.rc == _QUEUE_SIZE:
            return False
        # Without a connection paho has it all the same, and sends it at the next one.
        self._in_flight[info.mid] = (message.number, self._clock.monotonic())
        self._last_number = message.number
        return True

    def _publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=0, retain=True)

    def _check_acknowledgements(self) -> None:
        if not self._in_flight or not self._is_connected or self._is_ack_told:
            return
        oldest_s = min(since_s for _, since_s in self._in_flight.values())
        if self._clock.monotonic() - oldest_s >= _ACK_S:
            self._is_ack_told = True
            self._tell(
                self.name,
                f"has acknowledged nothing for {_ACK_S:g} s; {len(self._outbox)} events wait on "
                "the disk",
            )

    def _tell_once(self, sentence: str) -> None:
        if not self._is_told and not self._is_closed:
            self._is_told = True
            self._tell(self.name, f"{sentence}. It is tried again; events wait on the disk")

    def _tell_box(self, error: Exception) -> None:
        if not self._is_box_told:
            self._is_box_told = True
            self._tell(self.name, sentence_of(error))

    def _tell_full(self) -> None:
        if not self._is_box_told:
            self._is_box_told = True
            self._tell(
                self.name,
                f"the outbox is full with {len(self._outbox)} events: the oldest are given up, "
                f"{self._outbox.dropped} so far",
            )


def _checked(camera: str) -> str:
    if not _NAME.fullmatch(camera):
        raise WriteError(
            f"the camera {camera!r} has no MQTT topic: expected letters, digits, _, . and -"
        )
    return camera
