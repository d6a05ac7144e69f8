"""Whether a Ray cluster answers, asked in a process of its own that can hang and be ended.

Ray waits for a minute or more where nobody speaks, and then ends the whole process: no command of
ours may be that process. ``python -m patchline.runtime.cluster.knock ADDRESS`` is.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

from patchline.runtime.cluster.address import Address
from patchline.runtime.errors import ClusterError

ANSWER_S = 10.0
"""How long an address may take to answer."""

CLIENT_FACTOR = 3
"""Ray's client has a process started for it over there, which takes so much longer."""

_IMPORT_S = 120.0
"""How long Ray may take to be imported: a cold disk is no cluster that does not answer."""

TOKEN = (
    "it asks for a token, and this call has none or another one. Set RAY_AUTH_MODE=token, and "
    "RAY_AUTH_TOKEN to what ray get-auth-token says on the cluster's head"
)
"""What is wrong where a cluster refuses this call, and what helps."""

_REFUSED = b"InvalidAuthToken"
_READY = "ready"
_CHECK = "Check the address and the firewall, and that the cluster runs (ray status)"


def knock(address: Address, limit_s: float = ANSWER_S) -> None:
    """Return where a cluster answers.

    Args:
        address: of the cluster.
        limit_s: how long each of its two answers, to the call and to Ray's own words, may take.

    Raises:
        ClusterError: it does not answer in time, or refuses this machine's Ray.
    """
    _call(address, limit_s)
    problem = _ask(address, limit_s * (CLIENT_FACTOR if address.is_client else 1))
    if problem is not None:
        raise ClusterError(f"the Ray cluster at {address} cannot be used: {problem}")


def _call(address: Address, limit_s: float) -> None:
    try:
        socket.create_connection((address.host, address.port), timeout=limit_s).close()
    except TimeoutError as error:
        raise ClusterError(f"{address} does not answer within {limit_s:g} s. {_CHECK}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ClusterError(f"{address} does not answer: {reason.lower()}. {_CHECK}") from error


def _ask(address: Address, limit_s: float, command: Sequence[str] = ()) -> str | None:
    """What is wrong with the cluster, ``None`` where nothing is."""
    command = command or (sys.executable, "-m", "patchline.runtime.cluster.knock", str(address))
    # Its own session: Ctrl-C is for this process, which ends that one.
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        ) as asking,
    ):
        alarm = threading.Timer(_IMPORT_S, asking.kill)
        try:
            alarm.start()
            output = asking.stdout
            if output is None or output.readline().decode().strip() != _READY:
                return "Ray cannot be imported here. Install it again: pip install patchline[ray]"
            alarm.cancel()
            alarm = threading.Timer(limit_s, asking.kill)
            alarm.start()
            problem = _problem(output.read().decode(), limit_s)
            log.seek(0)
            # Ray's own exception says only that it did not connect, after 20 seconds.
            return TOKEN if problem is not None and _REFUSED in log.read() else problem
        finally:
            alarm.cancel()
            asking.kill()


def _problem(answer: str, limit_s: float) -> str | None:
    lines = [line for line in answer.splitlines() if line.startswith("{")]
    if not lines:
        return (
            f"something listens there and does not speak Ray's language within {limit_s:g} s. "
            f"{_CHECK}"
        )
    problem: str | None = json.loads(lines[-1])["problem"]
    return problem


def _answer(address: str) -> dict[str, Any]:
    import logging

    import ray

    print(_READY, flush=True)  # noqa: T201 (this is what this program is for)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        ray.shutdown()
    except Exception as error:  # of Ray, of its client, of gRPC: all of them say why
        return {"problem": " ".join(str(error).split()) or type(error).__name__}
    return {"problem": None}


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1])), flush=True)  # noqa: T201
