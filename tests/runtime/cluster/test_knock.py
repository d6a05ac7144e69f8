"""Addresses where no Ray cluster answers: a sentence in time, and this process lives on."""

from __future__ import annotations

import socket
import sys

import pytest

from patchline.runtime.cluster import knock as module
from patchline.runtime.cluster.address import Address
from patchline.runtime.cluster.knock import knock
from patchline.runtime.errors import ClusterError
from tests.ray_cluster import free_port

ADDRESS = Address("127.0.0.1", 1)


def test_a_closed_port() -> None:
    with pytest.raises(ClusterError, match=r"127.0.0.1:\d+ does not answer: connection refused"):
        knock(Address("127.0.0.1", free_port()))


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(ClusterError, match="does not answer: "):
        knock(Address("nobody.invalid", 6379))


def test_a_socket_that_never_speaks() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ClusterError, match=r"does not speak Ray's language within 1 s"):
            knock(Address("127.0.0.1", port), limit_s=1.0)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("print('ready'); print('{\"problem\": null}')", None),
        ("print('ready'); print('{\"problem\": \"Version mismatch\"}')", "Version mismatch"),
        ("import os; print('ready', flush=True); os.abort()", "does not speak"),
        ("raise ImportError", "cannot be imported"),
        (
            "import sys; print('ready'); print('InvalidAuthToken: is missing', file=sys.stderr);"
            'print(\'{"problem": "Failed to connect"}\')',
            "Set RAY_AUTH_MODE=token",
        ),
        (
            "import sys; print('ready'); print('InvalidAuthToken', file=sys.stderr);"
            "print('{\"problem\": null}')",
            None,
        ),
    ],
)
def test_what_the_other_process_says(program: str, problem: str | None) -> None:
    found = module._ask(ADDRESS, 60.0, (sys.executable, "-c", program))
    assert found is None if problem is None else problem in (found or "")
