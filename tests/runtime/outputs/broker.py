"""A real mosquitto to start, kill and restart, a subscriber, and a wire to cut."""

from __future__ import annotations

import contextlib
import queue
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")

needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None, reason="mosquitto is not installed (apt-get install mosquitto)"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """mosquitto on 127.0.0.1 with a port of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        is_persistent: bool = False,
        password_file: Path | None = None,
        lines: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "user root", *lines]
        lines.append(f"allow_anonymous {'true' if password_file is None else 'false'}")
        if password_file is not None:
            lines.append(f"password_file {password_file}")
        if is_persistent:
            lines += ["persistence true", f"persistence_location {folder}/", "autosave_interval 1"]
        self._config.write_text("\n".join(lines) + "\n")
        self._log = folder / "mosquitto.log"

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        assert MOSQUITTO is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [MOSQUITTO, "-c", str(self._config), "-v"], stdout=log, stderr=log
            )
        end = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def terminate(self) -> None:
        """As a service is stopped: it saves what it has."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)

    def kill(self) -> None:
        """As the power fails."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


class Subscriber:
    """Takes every message below ``patchline/#``, over restarts of the broker."""

    def __init__(self, broker: Broker, client_id: str = "subscriber") -> None:
        from paho.mqtt import client as paho

        self.messages: list[Any] = []
        self.is_subscribed = threading.Event()
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False
        )
        self._client.reconnect_delay_set(0.05, 1)  # type: ignore[arg-type]
        self._client.on_connect = lambda client, *rest: client.subscribe("patchline/#", qos=1)
        self._client.on_disconnect = lambda *rest: self.is_subscribed.clear()
        self._client.on_subscribe = lambda *rest: self.is_subscribed.set()
        self._client.on_message = lambda client, data, message: self.messages.append(message)
        self._client.connect_async("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self.is_subscribed.wait(20)

    def settle(self) -> None:
        """Wait until the broker knows what was received: it would deliver the rest once more.

        The first answer comes after the acknowledgements were sent, the second after they arrived.
        """
        for _ in range(2):
            self._client.publish("settled", qos=1).wait_for_publish(20)

    def on(self, topic: str) -> list[Any]:
        return [message for message in list(self.messages) if message.topic == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Wire:
    """A TCP connection to the broker that can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._is_cut = False
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._is_cut = True
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        self.cut()
        self._server.close()
        for thread in self._threads:
            thread.join(20)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self._is_cut:
                client.close()
                continue
            broker = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, broker]
            for pair in ((client, broker), (broker, client)):
                thread = threading.Thread(target=self._carry, args=pair, daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()


class FakeBroker:
    """Accepts, lets in if it ``welcomes``, takes publications, and never acknowledges one.

    ``published`` holds (payload, is marked as a duplicate) of all QoS 1 publications.
    """

    def __init__(self, *, welcomes: bool = True) -> None:
        self.published: queue.SimpleQueue[tuple[bytes, bool]] = queue.SimpleQueue()
        self._welcomes = welcomes
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self.connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.close()
        self.drop()
        for thread in self._threads:
            thread.join(20)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError):
            while True:
                head, body = _packet(connection)
                if head >> 4 == 1 and self._welcomes:
                    connection.sendall(b"\x20\x02\x00\x00")
                elif head >> 4 == 12:
                    connection.sendall(b"\xd0\x00")
                elif head >> 4 == 3 and head & 0x06:
                    topic_end = 2 + int.from_bytes(body[:2], "big")
                    self.published.put((body[topic_end + 2 :], bool(head & 0x08)))


def _packet(connection: socket.socket) -> tuple[int, bytes]:
    head = _exactly(connection, 1)[0]
    length = shift = 0
    while True:
        byte = _exactly(connection, 1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return head, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data
