"""``--mqtt``: events with QoS 1 out of an outbox, states, the process's own status, verdicts.

A message leaves the outbox when the broker has acknowledged it. While a connection is lost, paho
(2.x) keeps what it was given and sends it again itself, marked as a duplicate, so within a process
nothing is handed to it twice; what a process leaves behind is sent by the next one, under the same
``message_id``.
"""

from __future__ import annotations

import re
import socket
import threading
import uuid
from collections import deque
from typing import Any

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.decisions.event import Event, Notice
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.outputs.base import Tell, surely
from patchline.runtime.outputs.documents import (
    event_document,
    state_document,
    to_json,
    verdict_document,
)
from patchline.runtime.outputs.mqtt_address import MqttAddress, parse_mqtt
from patchline.runtime.outputs.mqtt_client import make_client
from patchline.runtime.outputs.mqtt_sender import MqttSender
from patchline.runtime.outputs.mqtt_signals import Signal, Signals
from patchline.runtime.outputs.outbox import Outbox
from patchline.runtime.verdict import JudgedFrame

MOST_FRAMES_UNSENT = 100
"""Verdicts that wait for the network; further ones are not sent."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


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
        self._outbox = outbox
        self._tell = surely(on_failure)
        self._unsent: deque[Any] = deque()
        self._is_closed = False
        self._client = self._make_client(address, line, first_retry_s)
        self._sender = MqttSender(
            self._client,
            Signals(self._client, f"cannot be reached{doubt}"),
            outbox,
            topic=self._topic,
            name=self.name,
            clock=clock,
            tell=self._tell,
            closing_s=closing_s,
        )
        self._sender.start()
        self._client.connect_async(address.host, address.port, address.keepalive_s)
        self._client.loop_start()

    @property
    def is_connected(self) -> bool:
        """Whether the broker has let it in."""
        return self._sender.is_connected

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
        if not self._sender.is_connected or len(self._unsent) >= MOST_FRAMES_UNSENT:
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
            self._sender.signals.put(Signal("state", f"{topic}/state", payload))
            return
        document = to_json(event_document(notice)).encode()
        if self._outbox.put(notice.message_id, f"{topic}/event", document):
            self._sender.signals.put(Signal("full"))
        self._sender.signals.put(Signal("event"))

    def close(self) -> None:
        """Wait a little for acknowledgements, say ``offline``, and end; bounded in time.

        What is not acknowledged stays in the outbox for the next start, and is told.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._sender.close()
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
        if not self._sender.is_alive:
            self._outbox.close()

    def _make_client(self, address: MqttAddress, line: str, first_retry_s: float) -> Any:
        made_up = f"patchline-{line}-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        client = make_client(address, address.client_id or made_up, first_retry_s)
        client.will_set(f"{self._topic}/status", "offline", qos=1, retain=True)
        return client


def _checked(camera: str) -> str:
    if not _NAME.fullmatch(camera):
        raise WriteError(
            f"the camera {camera!r} has no MQTT topic: expected letters, digits, _, . and -"
        )
    return camera
