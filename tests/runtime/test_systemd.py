"""What systemd is told, against a real datagram socket, and the unit file."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.line.systemd import Systemd

from .fakes import FakeClock

UNIT = Path(__file__).parents[2] / "docs" / "patchline@.service"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")


class Manager:
    """The other end: what it was told."""

    def __init__(self, address: str, notify_socket: str) -> None:
        self.notify_socket = notify_socket
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)

    def receive(self) -> str:
        self._socket.settimeout(60)
        return self._socket.recv(65536).decode()

    def has_more(self) -> bool:
        self._socket.settimeout(0.05)
        try:
            self._socket.recv(65536)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    if request.param == "path":
        path = str(tmp_path / "notify")
        manager = Manager(path, path)
    else:
        name = f"patchline-test-{os.getpid()}-{id(request)}"
        manager = Manager(f"\0{name}", f"@{name}")
    yield manager
    manager.close()


def told(manager: Manager, **more: str) -> Systemd:
    return Systemd({"NOTIFY_SOCKET": manager.notify_socket, **more})


def test_it_says_when_it_is_ready_and_when_it_stops(manager: Manager) -> None:
    systemd = told(manager)
    assert systemd.is_there
    systemd.ready()
    assert manager.receive() == "READY=1"
    systemd.ready("2 cameras run")
    assert manager.receive() == "READY=1\nSTATUS=2 cameras run"
    systemd.stopping()
    assert manager.receive() == "STOPPING=1"


def test_a_status_is_one_line(manager: Manager) -> None:
    systemd = told(manager)
    systemd.status("left is lost\nREADY=1")
    assert manager.receive() == "STATUS=left is lost READY=1"
    systemd.status("x" * 10_000)
    assert len(manager.receive()) == len("STATUS=") + 500
    systemd.status("Übung")
    assert manager.receive() == "STATUS=Übung"
    systemd.status("")
    assert not manager.has_more()


def test_a_reload_has_the_time_of_systemds_clock(manager: Manager) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    told(manager).reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = manager.receive().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= after


def test_signs_of_life_come_at_half_the_time_and_only_while_it_is_healthy(
    manager: Manager,
) -> None:
    waits: list[float] = []
    health = iter([True, True, False, False, True, True])

    class StoppingClock(FakeClock):
        def wait(self, event: threading.Event, seconds: float) -> bool:
            waits.append(seconds)
            return len(waits) == 6

    environment = {"NOTIFY_SOCKET": manager.notify_socket, "WATCHDOG_USEC": "30000000"}
    environment["WATCHDOG_PID"] = str(os.getpid())
    systemd = Systemd(environment, clock=StoppingClock())
    assert systemd.watchdog_s == 30.0
    systemd.watch(lambda: next(health))
    assert [manager.receive() for _ in range(4)] == ["WATCHDOG=1"] * 4
    systemd.close()
    assert waits == [15.0, 15.0, 3.0, 3.0, 15.0, 15.0]
    assert not manager.has_more()


def test_closing_ends_the_signs_of_life(manager: Manager) -> None:
    systemd = told(manager, WATCHDOG_USEC="3600000000")
    systemd.watch(lambda: True)
    systemd.watch(lambda: True)  # the second call does nothing
    assert manager.receive() == "WATCHDOG=1"
    systemd.close()
    systemd.close()
    assert systemd._thread is not None
    assert not systemd._thread.is_alive()
    assert systemd._thread.daemon
    assert not manager.has_more()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_watchdog_of_its_own_no_sign_is_sent(
    manager: Manager, more: dict[str, str]
) -> None:
    systemd = told(manager, **more)
    assert systemd.watchdog_s is None
    systemd.watch(lambda: True)
    assert systemd._thread is None
    assert not manager.has_more()


def test_outside_systemd_nothing_happens() -> None:
    systemd = Systemd({"WATCHDOG_USEC": "30000000"})
    assert not systemd.is_there
    systemd.ready("x")
    systemd.status("x")
    systemd.reloading()
    systemd.stopping()
    systemd.watch(lambda: True)
    assert systemd._thread is None
    systemd.close()


def test_an_address_that_is_no_socket_of_this_machine_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not Systemd({"NOTIFY_SOCKET": "vsock:2:1234"}).is_there
    assert "expected /path or @name" in caplog.text


def test_a_manager_that_is_gone_is_a_warning_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    systemd.ready()
    systemd.status("x")
    assert caplog.text.count("systemd cannot be told READY=1") == 1
    assert len(caplog.records) == 1


def test_a_manager_that_does_not_read_does_not_stop_the_line(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    systemd = told(manager)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        address = manager.notify_socket.replace("@", "\0")
        with pytest.raises(BlockingIOError):
            for _ in range(100_000):
                sender.sendto(b"x", address)
    systemd.status("the queue is full")
    assert "systemd cannot be told STATUS=the queue is full" in caplog.text


def settings_of(unit: str) -> dict[str, str]:
    lines = (line for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_the_unit_restarts_for_ever_and_is_watched() -> None:
    settings = settings_of(UNIT.read_text(encoding="utf-8"))
    assert settings["Type"] == "notify"
    assert settings["Restart"] == "always"
    assert settings["StartLimitIntervalSec"] == "0"
    assert settings["WatchdogSec"] == "30s"
    assert settings["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert settings["StateDirectory"] == "patchline/%i"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert "/opt/patchline/bin/run-camera" in text
    unit = tmp_path / "patchline@.service"
    unit.write_text(text.replace("/opt/patchline/bin/run-camera", sys.executable), encoding="utf-8")
    done = verify(tmp_path / "patchline@press3.service", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit.write_text(text.replace("Restart=always", "Restart=perhaps"), encoding="utf-8")
    assert "perhaps" in verify(tmp_path / "patchline@press3.service", unit).stderr


def verify(instance: Path, template: Path) -> Any:
    instance.unlink(missing_ok=True)
    instance.symlink_to(template.name)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(instance)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
