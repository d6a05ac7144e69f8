"""A user's own output by name, and the documented example against a Modbus server."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.decisions.event import Event, EventKind, Phase
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.outputs.hook import load_hook, parse_options
from patchline.runtime.outputs.queued import QueuedOutput

from .broker import free_port
from .given import Told, event, frame, state, wait_until

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"

MODULE = """
from patchline.runtime.errors import ConfigurationError

class Mine:
    name = "mine"
    def __init__(self, **options):
        self.options = options
    def write(self, judged): pass
    def notify(self, notice): pass
    def close(self): pass

class Half:
    name = "half"
    def write(self, judged): pass

class Nameless(Mine):
    name = None

def broken(): raise KeyError("host")
def refusing(): raise ConfigurationError("coil is -1")
number = 7
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_hooks.py").write_text(MODULE)
    (tmp_path / "bad_hooks.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_hooks"
    sys.modules.pop("my_hooks", None)


def test_a_factory_is_called_with_its_options(module: str) -> None:
    output: Any = load_hook(f"{module}:Mine", parse_options(["host=10.0.0.5", "text=a=b", "no="]))
    assert output.options == {"host": "10.0.0.5", "text": "a=b", "no": ""}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_hooks", "expected package.module:factory"),
        ("my_hooks:", "expected package.module:factory"),
        ("../my_hooks:Mine", "expected package.module:factory"),
        ("no_such_module:Mine", "cannot be imported (ModuleNotFoundError"),
        ("bad_hooks:Mine", "nothing_of_that_name"),
        ("my_hooks:Other", "my_hooks has no function or class Other"),
        ("my_hooks:number", "my_hooks has no function or class number"),
        ("my_hooks:broken", "failed with KeyError: 'host'"),
        ("my_hooks:refusing", "coil is -1"),
        ("my_hooks:Half", "made a Half without notify, close"),
        ("my_hooks:Nameless", "made a Nameless without name"),
    ],
)
def test_what_is_no_output_is_a_sentence(module: str, spec: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load_hook(spec)


@pytest.mark.parametrize("texts", [["host"], ["a b=c"], ["=c"], ["a=1", "a=2"]])
def test_options_of_another_form(texts: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="expected NAME=VALUE"):
        parse_options(texts)


def test_options_are_not_repeated_in_messages() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_options(["password secret=1"])
    assert "=1" not in str(caught.value)


# The example


class Plc:
    """Modbus TCP: takes coils; answers with exception 2 while ``refuses``."""

    def __init__(self) -> None:
        self.coils: list[tuple[int, bool]] = []
        self.refuses = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(20)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                request = stream.read(12)
                number, protocol, length, unit, function, coil, value = struct.unpack(
                    ">HHHBBHH", request
                )
                assert (protocol, length, function) == (0, 6, 5)
                if self.refuses:
                    connection.sendall(struct.pack(">HHHBBB", number, 0, 3, unit, 0x85, 2))
                    continue
                assert value in (0, 0xFF00)
                self.coils.append((coil, value == 0xFF00))
                connection.sendall(request[:5])  # in two parts, as networks do
                connection.sendall(request[5:])


def defect(number: int, **options: Any) -> Event:
    return replace(event(number, **options), start=datetime.now(timezone.utc))


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(EXAMPLES)
    yield
    sys.modules.pop("plc", None)


def test_the_relay_closes_at_a_defect_and_opens_after_its_time(examples: None) -> None:
    with closing(Plc()) as plc:
        options = {"host": "127.0.0.1", "port": str(plc.port), "coil": "3", "seconds": "0.05"}
        output = QueuedOutput(load_hook("plc:Relay", options))
        assert plc.coils == [(3, False)]
        output.write(frame(score=300.0))
        output.notify(state())
        output.notify(defect(1, kind=EventKind.DRIFT))
        output.notify(event(9))  # years late
        output.notify(defect(2))
        output.notify(defect(2, phase=Phase.ENDED))
        wait_until(lambda: len(plc.coils) == 3)
        output.close()
        assert plc.coils == [(3, False), (3, True), (3, False), (3, False)]
        assert output.failures == 0


def test_the_relay_stays_closed_while_defects_follow_each_other(examples: None) -> None:
    with closing(Plc()) as plc:
        relay: Any = load_hook(
            "plc:Relay", {"host": "127.0.0.1", "port": str(plc.port), "seconds": "60"}
        )
        for number in range(3):
            relay.notify(defect(number))
        assert plc.coils == [(0, False), (0, True), (0, True), (0, True)]
        relay.close()
        assert plc.coils[-1] == (0, False)


def test_a_plc_that_is_away_or_refuses_is_told_and_tried_again(examples: None) -> None:
    with pytest.raises(WriteError, match="cannot be reached"):
        load_hook("plc:Relay", {"host": "127.0.0.1", "port": str(free_port())})
    told = Told()
    with closing(Plc()) as plc:
        relay = load_hook(
            "plc:Relay", {"host": "127.0.0.1", "port": str(plc.port), "seconds": "60"}
        )
        output = QueuedOutput(relay, on_failure=told)
        plc.refuses = True
        output.notify(defect(1))
        wait_until(lambda: bool(told.all))
        assert "refused: it answered" in told.sentences[0]
        plc.refuses = False
        wait_until(lambda: (0, True) in plc.coils)
        output.close()
        assert plc.coils[-1] == (0, False)
