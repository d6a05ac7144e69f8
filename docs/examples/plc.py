"""A relay that is closed for some seconds at each defect: a coil, written by Modbus TCP.

    PYTHONPATH=docs/examples run-camera … --output-hook plc:Relay \
        --output-option host=192.168.0.10 --output-option coil=3 --output-option seconds=2

Before it is used for a reject gate: a PLC should let the coil go by itself when nothing is written
for longer than the longest pulse. A line that lost its power cannot do that.
"""

from __future__ import annotations

import socket
import struct
import threading
from datetime import datetime, timedelta, timezone

from patchline.runtime.decisions.event import Event, EventKind, Notice, Phase
from patchline.runtime.errors import WriteError
from patchline.runtime.verdict import JudgedFrame


class Relay:
    """Closes ``coil`` at the start of a defect, and opens it ``seconds`` after the latest one.

    A defect that is told later than ``late`` seconds after its first frame (the PLC was away, and
    the call was repeated) is let pass: the relay would act on another part.
    """

    ignores_frames = True

    def __init__(
        self, host: str, coil: str = "0", seconds: str = "1", port: str = "502", late: str = "10"
    ) -> None:
        self.name = f"relay {coil} at {host}"
        self._address, self._coil, self._seconds = (host, int(port)), int(coil), float(seconds)
        self._late = timedelta(seconds=float(late))
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._number = 0
        self._set(False)  # a wrong address is told before the line starts

    def write(self, judged: JudgedFrame) -> None:
        """Frames are not looked at."""

    def notify(self, notice: Notice) -> None:
        """Close the relay at a defect's start; a WriteError is told, and the call is repeated."""
        if not isinstance(notice, Event) or notice.kind is not EventKind.DEFECT:
            return
        is_late = datetime.now(timezone.utc) - notice.start > self._late
        if notice.phase is Phase.STARTED and not is_late:
            self._set(True)
            self._restart_timer()

    def close(self) -> None:
        """Leave the relay open."""
        if self._timer is not None:
            self._timer.cancel()
        self._set(False)

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(self._seconds, self._let_go)
        self._timer.daemon = True
        self._timer.start()

    def _let_go(self) -> None:
        try:
            self._set(False)
        except WriteError:  # the PLC is away: nobody else would try it again
            self._restart_timer()

    def _set(self, is_on: bool) -> None:
        """Modbus function 5: write a single coil; the answer repeats the request."""
        with self._lock:
            self._number = (self._number + 1) % 65536
            body = struct.pack(">BBHH", 1, 5, self._coil, 0xFF00 if is_on else 0)
            request = struct.pack(">HHH", self._number, 0, len(body)) + body
            try:
                with socket.create_connection(self._address, timeout=2.0) as plc:
                    plc.sendall(request)
                    with plc.makefile("rb") as stream:
                        head = stream.read(6)
                        answer = head + stream.read(int.from_bytes(head[4:6], "big"))
            except OSError as error:
                raise WriteError(f"{self.name} cannot be reached: {error}") from error
            if answer != request:
                raise WriteError(f"{self.name} refused: it answered {answer.hex() or 'nothing'}")
