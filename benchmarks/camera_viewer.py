"""One browser's worth of looking, from a process of its own: every update and every picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from patchline.benchmarks.camera_lines import BenchmarkLine
from patchline.runtime.dashboard.live import LiveView
from patchline.runtime.dashboard.server import Dashboard
from patchline.runtime.engine import Engine

_PATIENCE_S = 30.0


def watched_line(uri: str, engine: Engine, folder: Path) -> tuple[float, int]:
    """Run a line with the page and one viewer.

    Returns:
        Frames per second, and how many pictures the viewer got.
    """
    live = LiveView()
    line = BenchmarkLine(uri, engine, [live], folder)
    page = Dashboard(live, line.controls, port=0)
    page.start()
    program = [sys.executable, "-m", "patchline.benchmarks.camera_viewer", page.url]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as viewer:
        try:
            if viewer.stdout is None or viewer.stdout.readline().strip() != "looking":
                raise RuntimeError("the viewer could not connect")
            fps = line.fps()
        finally:
            page.stop()
        seen = viewer.stdout.read()
    return fps, int(json.loads(seen))


def look(url: str) -> int:
    """Look at a page until it goes away; how many pictures came."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.typing import Origin

    address = url.rstrip("/")
    pictures = 0
    socket = connect(
        f"{address.replace('http', 'ws', 1)}/live",
        origin=Origin(address),
        open_timeout=_PATIENCE_S,
        max_size=None,
    )
    with socket:
        socket.send(json.dumps({"look": "heat"}))
        socket.recv(_PATIENCE_S)
        print("looking", flush=True)  # noqa: T201
        try:
            while True:
                pictures += isinstance(socket.recv(_PATIENCE_S), bytes)
        except (ConnectionClosed, TimeoutError):
            return pictures


if __name__ == "__main__":
    print(look(sys.argv[1]), flush=True)  # noqa: T201
