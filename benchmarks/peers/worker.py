"""One peer in a process of its own: JSON lines in, JSON lines out.

Run by the peer's own Python as ``python worker.py PEER.py VARIANT``; needs NumPy besides what the
peer needs, and nothing of Patchline. A request is ``{"do": NAME, ...}``, an answer ``{"ok": ...}``
or ``{"error": "..."}``. The peer's file offers ``PACKAGES``, ``judge(frame)``, ``read(path)`` and
any other command as a function of that name, listed in ``COMMANDS``.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import resource
import runpy
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

Peer = dict[str, Any]
Command = Callable[..., dict[str, Any]]


def serve(script: Path, variant: str, requests: TextIO, answers: TextIO) -> None:
    """Load a peer's file, say so, and answer requests until ``quit`` or the end of them.

    Args:
        script: the peer's file.
        variant: given to it as ``VARIANT``, for a peer with several ways to run.
        requests: lines of JSON.
        answers: the same.
    """
    peer: Peer = {}
    commands: dict[str, Command] = {}

    def hello() -> dict[str, Any]:
        started = time.perf_counter()
        peer.update(runpy.run_path(str(script), {"VARIANT": variant}))
        loaded_s = time.perf_counter() - started
        commands.update(commands_of(peer))
        return {"import_s": loaded_s, "packages": versions(peer["PACKAGES"]), **memory()}

    if not _answer(answers, hello):
        return
    for line in requests:
        request = json.loads(line)
        name = request.pop("do")
        if name == "quit":
            return
        _answer(answers, lambda name=name, given=request: commands[name](**given))  # type: ignore[misc]


def commands_of(peer: Peer) -> dict[str, Command]:
    """What every peer answers to, and what this one adds."""
    own: dict[str, Command] = {name: peer[name] for name in peer["COMMANDS"]}
    return own | {
        "memory": memory,
        "run": lambda **given: run(peer, **given),
        "score": lambda **given: score(peer, **given),
    }


def run(peer: Peer, frames: str, count: int, warmup: int) -> dict[str, Any]:
    """Judge frames one by one, in turn: uint8 ``[N, H, W, 3]`` BGR at model size, in memory.

    Args:
        peer: with a model loaded.
        frames: an ``.npy`` file.
        count: frames that are timed.
        warmup: frames judged before.
    """
    import numpy as np

    pictures = np.load(frames)
    judge, times_ms = peer["judge"], []
    for turn in range(warmup + count):
        frame = pictures[turn % len(pictures)]
        started = time.perf_counter()
        judge(frame)
        times_ms.append(1e3 * (time.perf_counter() - started))
    return {"times_ms": times_ms[warmup:]}


def score(peer: Peer, pictures: list[str], out: str) -> dict[str, Any]:
    """Judge picture files; ``scores [N]`` and ``maps [N, H, W]``, float32, go to an ``.npz``."""
    import numpy as np

    judged = [peer["judge"](peer["read"](path)) for path in pictures]
    scores = np.array([float(item[0]) for item in judged], np.float32)
    maps = np.stack([np.asarray(item[1], np.float32) for item in judged])
    np.savez(out, scores=scores, maps=maps)
    return {"pictures": len(judged)}


def memory() -> dict[str, Any]:
    """The most memory this process has held so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # what a parent held before the start does not count there
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return {"peak_mib": int(line.split()[1]) / 1024}
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def versions(packages: list[str]) -> dict[str, str]:
    """Of the packages that matter to a peer."""
    return {name: importlib.metadata.version(name) for name in packages}


def _answer(answers: TextIO, command: Callable[[], dict[str, Any]]) -> bool:
    try:
        answer: dict[str, Any] = {"ok": command()}
    except Exception as error:  # whatever a peer raises is said, and the benchmark goes on
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        answer = {"error": f"{type(error).__name__}: {first}"}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    return "ok" in answer


def _own_stdout() -> TextIO:
    """Standard output for answers alone: what libraries print goes to standard error."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    return channel


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], sys.stdin, _own_stdout())
