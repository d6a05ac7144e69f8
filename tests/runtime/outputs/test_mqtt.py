"""MQTT against a real mosquitto: restarts lose nothing; and against brokers that misbehave."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.camera.states import StreamState
from patchline.runtime.decisions.event import Phase
from patchline.runtime.errors import ConfigurationError, MissingExtraError, WriteError
from patchline.runtime.outputs.mqtt import MqttOutput
from patchline.runtime.outputs.mqtt_address import parse_mqtt
from patchline.runtime.outputs.outbox import Outbox
from tests.programs import run_program

from ..fakes import FakeClock
from .broker import Broker, FakeBroker, Subscriber, Wire, free_port, needs_mosquitto
from .given import Told, event, frame, state, wait_until
from .web_server import make_certificate

pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed: patchline[mqtt]")

Make = Callable[..., MqttOutput]
EVENTS = "patchline/lamps/camera1/event"


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(tmp_path: Path, told: Told) -> Iterator[Make]:
    outputs: list[MqttOutput] = []

    def make(url: str, box: str = "outbox.db", **options: Any) -> MqttOutput:
        output = MqttOutput(
            url,
            line="lamps",
            outbox=Outbox(tmp_path / box),
            on_failure=told,
            first_retry_s=0.05,
            **{"closing_s": 1.0, **options},
        )
        outputs.append(output)
        return output

    yield make
    for output in outputs:
        output.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "broker")
    broker.start()
    yield broker
    broker.close()


def ids(messages: list[Any]) -> list[str]:
    return [json.loads(message.payload)["message_id"] for message in messages]


def status_of(subscriber: Subscriber) -> bytes | None:
    messages = subscriber.on("patchline/lamps/status")
    return messages[-1].payload if messages else None


def id_of(number: int) -> str:
    return event(number).message_id


@needs_mosquitto
def test_events_states_status_and_frames_arrive_where_they_should(
    broker: Broker, make: Make
) -> None:
    with closing(Subscriber(broker)) as subscriber:
        output = make(broker.url + "?frames=1")
        wait_until(lambda: output.is_connected)
        output.notify(state(StreamState.CONNECTING, camera="left"))
        output.notify(state(StreamState.RUNNING, camera="left"))
        output.write(frame(3, camera="left"))
        output.notify(event(1, camera="left"))
        output.notify(event(1, camera="left", phase=Phase.ENDED))
        base = "patchline/lamps/left"
        wait_until(lambda: len(subscriber.on(f"{base}/event")) == 2)
        wait_until(lambda: output.waiting == 0)
        started, ended = subscriber.on(f"{base}/event")
        assert (started.qos, started.retain) == (1, False)
        assert json.loads(started.payload)["phase"] == "started"
        assert json.loads(ended.payload)["message_id"] == f"{1:032x}-ended"
        wait_until(lambda: len(subscriber.on(f"{base}/frame")) == 1)
        assert json.loads(subscriber.on(f"{base}/frame")[0].payload)["frame"] == 3
        with closing(_late_subscriber(broker)) as late:
            wait_until(lambda: len(late.messages) == 2)  # what is retained, and no event
            assert json.loads(late.on(f"{base}/state")[0].payload)["state"] == "running"
            assert late.on("patchline/lamps/status")[0].payload == b"online"
        output.close()
        wait_until(lambda: status_of(subscriber) == b"offline")


def _late_subscriber(broker: Broker) -> Subscriber:
    return Subscriber(broker, "late")


@needs_mosquitto
def test_a_process_that_dies_is_offline_by_its_last_will(broker: Broker, make: Make) -> None:
    wire = Wire(broker.port)
    with closing(Subscriber(broker)) as subscriber, closing(wire):
        make(f"mqtt://127.0.0.1:{wire.port}")
        wait_until(lambda: status_of(subscriber) == b"online")
        wire.cut()
        wait_until(lambda: status_of(subscriber) == b"offline")
        wire.mend()
        wait_until(lambda: status_of(subscriber) == b"online")


@needs_mosquitto
def test_a_broker_that_keeps_its_state_restarts_and_nothing_is_lost(
    tmp_path: Path, make: Make, told: Told
) -> None:
    broker = Broker(tmp_path / "broker", is_persistent=True)
    broker.start()
    with closing(broker), closing(Subscriber(broker)) as subscriber:
        output = make(broker.url)
        given = 0
        for _ in range(3):
            for _ in range(10):  # some before, some while it is down, some right after
                output.notify(event(given))
                given += 1
            wait_until(lambda: output.waiting == 0)
            seen = given
            wait_until(lambda seen=seen: len(subscriber.on(EVENTS)) == seen)  # type: ignore[misc]
            subscriber.settle()
            broker.terminate()
            for _ in range(10):
                output.notify(event(given))
                given += 1
            broker.start()
        wait_until(lambda: output.waiting == 0)
        wait_until(lambda: len(set(ids(subscriber.on(EVENTS)))) == given)
        # Once, and in order.
        assert ids(subscriber.on(EVENTS)) == [id_of(number) for number in range(given)]
        lost, back = told.sentences[-2:]
        assert lost.endswith("It is tried again; events wait on the disk")
        assert "is connected again" in back


@needs_mosquitto
def test_a_broker_that_is_killed_under_load_loses_nothing(tmp_path: Path, make: Make) -> None:
    """It forgets everything; the subscriber is there again before the publisher is."""
    broker = Broker(tmp_path / "broker")
    broker.start()
    wire = Wire(broker.port)
    with closing(broker), closing(wire), closing(Subscriber(broker)) as subscriber:
        output = make(f"mqtt://127.0.0.1:{wire.port}")
        given = 0
        for _ in range(3):
            sending = threading.Thread(target=_send, args=(output, given, given + 40), daemon=True)
            sending.start()
            given += 40
            seen = len(subscriber.on(EVENTS))
            wait_until(lambda seen=seen: len(subscriber.on(EVENTS)) >= seen + 5)  # type: ignore[misc]
            wire.cut()  # in the middle of it
            wait_until(lambda: not output.is_connected)
            sending.join(20)
            _send(output, given, given + 10)
            given += 10
            subscriber.is_subscribed.clear()
            broker.kill()
            broker.start()
            assert subscriber.is_subscribed.wait(20)
            wire.mend()
            wait_until(lambda: output.waiting == 0)
        wait_until(lambda: len(set(ids(subscriber.on(EVENTS)))) == given)
        counts = Counter(ids(subscriber.on(EVENTS)))
    # Of those whose acknowledgement was cut off, and no others, a second copy may have come.
    assert set(counts) == {id_of(number) for number in range(given)}
    assert max(counts.values()) <= 2
    assert sum(count - 1 for count in counts.values()) <= 3 * 20


def _send(output: MqttOutput, begin: int, end: int) -> None:
    for number in range(begin, end):
        output.notify(event(number))


@needs_mosquitto
def test_a_broker_that_is_down_at_first_gets_it_all_later(
    tmp_path: Path, make: Make, told: Told
) -> None:
    broker = Broker(tmp_path / "broker")
    output = make(broker.url)
    for number in range(30):
        output.notify(event(number))
    wait_until(lambda: bool(told.all))
    assert told.all == [
        (
            f"mqtt://127.0.0.1:{broker.port}",
            "cannot be reached. It is tried again; events wait on the disk",
        )
    ]
    broker.start()
    with closing(broker), closing(Subscriber(broker)):
        wait_until(lambda: output.waiting == 0)


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from patchline.runtime.decisions.event import Event, EventKind, Phase
from patchline.runtime.outputs.mqtt import MqttOutput
from patchline.runtime.outputs.outbox import Outbox
from datetime import datetime, timezone
output = MqttOutput(sys.argv[1], line="lamps", outbox=Outbox(Path(sys.argv[2])))
now = datetime.now(timezone.utc)
for number in range(25):
    output.notify(Event(f"{number:032x}", EventKind.DEFECT, Phase.STARTED, "camera1", "lamp", now,
                        None, 0, 0, 1, 1.0, 0.5))
print("kept", flush=True)
time.sleep(60)
"""


@needs_mosquitto
def test_what_a_killed_process_left_is_sent_by_the_next_one(tmp_path: Path, make: Make) -> None:
    broker = Broker(tmp_path / "broker")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, broker.url, str(tmp_path / "outbox.db"), ""],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"kept\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait(20)
    child.stdout.close()
    broker.start()
    with closing(broker), closing(Subscriber(broker)) as subscriber:
        output = make(broker.url)
        output.notify(event(25))
        wait_until(lambda: output.waiting == 0)
        wait_until(lambda: len(subscriber.on(EVENTS)) == 26)
        assert ids(subscriber.on(EVENTS)) == [id_of(number) for number in range(26)]
        output.close()
        with closing(make(broker.url)) as again:  # nothing is left for a third one
            wait_until(lambda: again.is_connected)
            time.sleep(0.2)
        assert len(subscriber.on(EVENTS)) == 26


@needs_mosquitto
def test_a_wrong_password_is_told_once_without_it(tmp_path: Path, make: Make, told: Told) -> None:
    tool = "mosquitto_passwd"
    password_file = tmp_path / "passwords"
    try:
        run_program([tool, "-b", "-c", password_file, "anna", "right"], check=True)
    except FileNotFoundError:
        pytest.skip("mosquitto_passwd is not installed")
    broker = Broker(tmp_path / "broker", password_file=password_file)
    broker.start()
    with closing(broker):
        output = make(broker.url.replace("//", "//anna:wr%40ng@"))
        output.notify(event(1))
        wait_until(lambda: bool(told.all))
        time.sleep(0.5)  # several attempts
        assert len(told.all) == 1
        assert "refuses the connection: Not authorized" in told.sentences[0]
        assert (output.waiting, output.is_connected) == (1, False)
        output.close()
        right = make(broker.url.replace("//", "//anna:right@"))
        wait_until(lambda: right.waiting == 0)
    assert not any("wr" in text and "@" in text for pair in told.all for text in pair)


# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@needs_mosquitto
def test_encrypted_with_a_certificate_that_is_trusted_and_with_none(
    tmp_path: Path, make: Make, told: Told
) -> None:
    certificate, key = make_certificate(tmp_path)
    broker = Broker(tmp_path / "broker", lines=[f"certfile {certificate}", f"keyfile {key}"])
    broker.start()
    with closing(broker):
        url = broker.url.replace("mqtt:", "mqtts:")
        strange = make(url, "strange.db")
        strange.notify(event(1))
        wait_until(lambda: bool(told.all))
        assert told.sentences[0].startswith("cannot be reached, or its certificate is not trusted")
        assert strange.waiting == 1
        output = make(f"{url}?cafile={certificate}")
        output.notify(event(1))
        wait_until(lambda: output.waiting == 0)


# Brokers that misbehave


def test_without_acknowledgements_nothing_is_sent_twice_but_over_a_new_connection(
    make: Make, told: Told
) -> None:
    with closing(FakeBroker()) as broker:
        output = make(broker.url)
        for number in range(30):
            output.notify(event(number))
        first = [broker.published.get(timeout=20) for _ in range(20)]
        time.sleep(0.7)  # more than one tick of the sender
        assert broker.published.empty()  # no more than so many in flight
        assert [json.loads(payload)["message_id"] for payload, _ in first] == [
            id_of(number) for number in range(20)
        ]
        assert not any(is_again for _, is_again in first)
        broker.drop()
        again = [broker.published.get(timeout=20) for _ in range(20)]
        assert [payload for payload, _ in again] == [payload for payload, _ in first]
        assert all(is_again for _, is_again in again)
        time.sleep(0.7)
        assert broker.published.empty()
        begun = time.monotonic()
        output.close()
        assert time.monotonic() - begun < 15
        assert told.sentences[-1] == "30 events are not acknowledged; the next start sends them"


def test_a_broker_that_acknowledges_nothing_is_told_once(make: Make, told: Told) -> None:
    clock = FakeClock()
    with closing(FakeBroker()) as broker:
        output = make(broker.url, clock=clock)
        output.notify(event(1))
        broker.published.get(timeout=20)
        clock.time_s = 61.0
        wait_until(lambda: bool(told.all))
        clock.step_s = 30.0  # so that closing comes to its end
        output.close()
        assert told.sentences == [
            "has acknowledged nothing for 60 s; 1 events wait on the disk",
            "1 events are not acknowledged; the next start sends them",
        ]


def test_a_broker_that_never_lets_in_does_not_hold_up_the_end(make: Make, told: Told) -> None:
    with closing(FakeBroker(welcomes=False)) as broker:
        output = make(broker.url + "?frames=1")
        output.notify(event(1))
        output.write(frame())
        wait_until(lambda: bool(broker.connections))
        begun = time.monotonic()
        output.close()
        output.close()
        assert time.monotonic() - begun < 15
        assert output.skipped_frames == 1
        assert not output.is_connected


def test_a_full_outbox_gives_up_the_oldest_and_says_so(tmp_path: Path, told: Told) -> None:
    output = MqttOutput(
        f"mqtt://127.0.0.1:{free_port()}",
        line="lamps",
        outbox=Outbox(tmp_path / "outbox.db", most_messages=3),
        on_failure=told,
        closing_s=0.1,
    )
    for number in range(6):
        output.notify(event(number))
    wait_until(lambda: any("the outbox is full" in sentence for sentence in told.sentences))
    output.close()
    assert sum("the outbox is full" in sentence for sentence in told.sentences) == 1
    with closing(Outbox(tmp_path / "outbox.db")) as outbox:
        assert len(outbox) == 3
        assert (message := outbox.next()) is not None
        assert message.message_id == id_of(3)


def test_a_camera_whose_name_is_no_topic_is_an_error(make: Make) -> None:
    output = make(f"mqtt://127.0.0.1:{free_port()}?frames=1", closing_s=0.1)
    for camera in ("a/b", "+", "", "a b"):
        with pytest.raises(WriteError, match="has no MQTT topic"):
            output.notify(event(1, camera=camera))
        with pytest.raises(WriteError, match="has no MQTT topic"):
            output.notify(state(camera=camera))
    assert output.waiting == 0


def test_a_message_that_cannot_be_published_does_not_end_the_sender(
    tmp_path: Path, told: Told
) -> None:
    with closing(FakeBroker()) as broker:
        outbox = Outbox(tmp_path / "a.db")
        outbox.put("strange", "no/+/topic", b"x")
        output = MqttOutput(broker.url, line="lamps", outbox=outbox, on_failure=told, closing_s=0.1)
        wait_until(lambda: bool(told.all))
        output.notify(event(1))
        payload, _ = broker.published.get(timeout=20)
        assert json.loads(payload)["message_id"] == id_of(1)
        output.close()


# Addresses


def test_an_address_in_full(tmp_path: Path) -> None:
    cafile = tmp_path / "ca.pem"
    cafile.write_text("")
    address = parse_mqtt(
        f"mqtts://an%20na:p%40ss@[::1]:99/hall/2?client_id=x&cafile={cafile}&frames=1&keepalive=9"
    )
    assert (address.host, address.port, address.is_encrypted) == ("::1", 99, True)
    assert (address.user, address.password, address.prefix) == ("an na", "p@ss", "hall/2")
    assert (address.client_id, address.cafile) == ("x", cafile)
    assert (address.has_frames, address.keepalive_s) == (True, 9)
    assert str(address) == "mqtts://[::1]:99"
    assert "p@ss" not in repr(address)


def test_an_address_in_short() -> None:
    assert parse_mqtt("mqtt://broker").port == 1883
    assert parse_mqtt("mqtts://broker/").port == 8883
    assert parse_mqtt("mqtt://broker").prefix == "patchline"


@pytest.mark.parametrize(
    "url",
    [
        "broker",
        "http://anna:secret@broker",
        "mqtt://",
        "mqtt://anna:secret@broker:99999",
        "mqtt://anna:secret@broker:x",
        "mqtt://broker:0",
        "mqtt://broker/a+b",
        "mqtt://broker/a//b",
        "mqtt://broker/%23",
        "mqtt://broker/$SYS",
        "mqtt://anna:secret@broker?qos=2",
        "mqtt://broker?client_id=a&client_id=b",
        "mqtt://broker?frames=yes",
        "mqtt://broker?keepalive=1",
        "mqtt://broker?cafile=/no/such/file",
    ],
)
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_mqtt(url)
    assert "--mqtt" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_names_and_certificates_that_cannot_be(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "a.db")) as outbox:
        with pytest.raises(ConfigurationError, match="the line is called 'a/b'"):
            MqttOutput("mqtt://127.0.0.1", line="a/b", outbox=outbox)
        cafile = tmp_path / "ca.pem"
        cafile.write_text("no certificate")
        with pytest.raises(ConfigurationError, match="the certificates cannot be used"):
            MqttOutput(f"mqtts://127.0.0.1?cafile={cafile}", line="a", outbox=outbox)


def test_without_paho_the_pip_command_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("paho"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    with closing(Outbox(tmp_path / "a.db")) as outbox:
        monkeypatch.setattr(builtins, "__import__", refuse)
        with pytest.raises(MissingExtraError, match=r'pip install "patchline\[mqtt\]"'):
            MqttOutput("mqtt://127.0.0.1", line="a", outbox=outbox)
