"""The thread that sends over MQTT: events out of the outbox, states, and what the broker said."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from patchline.runtime.clock import Clock
from patchline.runtime.outputs.base import Tell, sentence_of
from patchline.runtime.outputs.mqtt_signals import Signal, Signals
from patchline.runtime.outputs.outbox import Message, Outbox

MOST_IN_FLIGHT = 20

_ACK_S = 60.0
_TICK_S = 0.5
_QUEUE_SIZE = 15  # paho's MQTT_ERR_QUEUE_SIZE


class MqttSender:
    """Hands paho what is to be sent, from one thread that is told by others what has happened.

    Args:
        client: paho's, not connected yet.
        signals: what it and others leave word in.
        outbox: where events wait.
        topic: of the line.
        name: of the output, for what is told.
        clock: for the patience with a broker that does not acknowledge.
        tell: never raises.
        closing_s: how long acknowledgements are waited for in the end.

    Attributes:
        is_connected: whether the broker has let it in.
        signals: see above.
    """

    def __init__(
        self,
        client: Any,
        signals: Signals,
        outbox: Outbox,
        *,
        topic: str,
        name: str,
        clock: Clock,
        tell: Tell,
        closing_s: float,
    ) -> None:
        self.is_connected, self.signals = False, signals
        self._client, self._outbox = client, outbox
        self._topic, self._name = topic, name
        self._clock, self._tell, self._closing_s = clock, tell, closing_s
        self._in_flight: dict[int, tuple[int, float]] = {}
        self._acknowledged: deque[int] = deque()
        self._last_number = 0
        self._states: dict[str, bytes] = {}
        self._is_told = self._is_ack_told = self._is_closing = False
        self._is_box_told = self._is_lost = False
        client.max_inflight_messages_set(MOST_IN_FLIGHT)
        self._thread = threading.Thread(target=self._run, name="MQTT sender", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs, and may use the outbox."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to send, as soon as there is a connection."""
        self._thread.start()

    def close(self) -> None:
        """Wait a little for acknowledgements, and say ``offline``; bounded in time."""
        self._is_closing = True
        self.signals.put(Signal("close"))
        self._thread.join(self._closing_s + 5.0)

    # From here on: the thread that sends, alone.

    def _run(self) -> None:
        end_s: float | None = None
        while end_s is None or not self._is_done(end_s):
            signal = self.signals.take(_TICK_S if end_s is None else 0.05)
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
        is_all_sent = self.signals.is_empty and not len(self._outbox)
        return is_all_sent or self._is_lost or self._clock.monotonic() >= end_s

    def _take(self, signal: Signal) -> None:
        if signal.kind == "connected":
            self._begin()
        elif signal.kind == "lost":
            self.is_connected, self._is_lost = False, True
            self._tell_once(signal.sentence)
        elif signal.kind == "acknowledged" and signal.mid in self._in_flight:
            self._acknowledged.append(self._in_flight.pop(signal.mid)[0])
            self._is_ack_told = False
        elif signal.kind == "state":
            self._states[signal.topic] = signal.payload
            if self.is_connected:
                self._publish(signal.topic, signal.payload)
        elif signal.kind == "full" and self._outbox.dropped:
            self._tell_full()
        while self._acknowledged:
            self._outbox.remove(self._acknowledged[0])
            self._acknowledged.popleft()
        if not len(self._outbox):
            self._is_box_told = False

    def _begin(self) -> None:
        self.is_connected, self._is_lost = True, False
        # The broker may have forgotten what it retained, or published the last will since.
        self._publish(f"{self._topic}/status", b"online")
        for topic, payload in self._states.items():
            self._publish(topic, payload)
        now_s = self._clock.monotonic()
        self._in_flight = {mid: (number, now_s) for mid, (number, _) in self._in_flight.items()}
        if self._is_told:
            self._is_told = False
            self._tell(self._name, f"is connected again; {len(self._outbox)} events are sent now")

    def _send(self) -> None:
        while self.is_connected and len(self._in_flight) < MOST_IN_FLIGHT:
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
        if not self._in_flight or not self.is_connected or self._is_ack_told:
            return
        oldest_s = min(since_s for _, since_s in self._in_flight.values())
        if self._clock.monotonic() - oldest_s >= _ACK_S:
            self._is_ack_told = True
            self._tell(
                self._name,
                f"has acknowledged nothing for {_ACK_S:g} s; {len(self._outbox)} events wait on "
                "the disk",
            )

    def _tell_once(self, sentence: str) -> None:
        if not self._is_told and not self._is_closing:
            self._is_told = True
            self._tell(self._name, f"{sentence}. It is tried again; events wait on the disk")

    def _tell_box(self, error: Exception) -> None:
        if not self._is_box_told:
            self._is_box_told = True
            self._tell(self._name, sentence_of(error))

    def _tell_full(self) -> None:
        if not self._is_box_told:
            self._is_box_told = True
            self._tell(
                self._name,
                f"the outbox is full with {len(self._outbox)} events: the oldest are given up, "
                f"{self._outbox.dropped} so far",
            )
