"""A connection to a Ray cluster, for as long as one call of a command takes (issue 9)."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from patchline.runtime.cluster.address import AUTO, LOCAL, parse_address, running_address
from patchline.runtime.cluster.extra import check_client, import_ray
from patchline.runtime.cluster.knock import ANSWER_S, knock
from patchline.runtime.errors import ClusterError


@dataclass(frozen=True)
class Node:
    """One machine of the cluster, and what Ray has of it to give.

    Attributes:
        node_id: Ray's name of it, hexadecimal.
        address: IP address.
        host: its own name.
        cpus: CPU threads; gpus: GPUs, both as they were given to Ray.
        memory_bytes: for tasks.
    """

    node_id: str
    address: str
    host: str
    cpus: float
    gpus: float
    memory_bytes: float


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        ray: the module.
        address: of the cluster, for messages; ``local`` for one of this call's own.
    """

    ray: Any
    address: str

    def nodes(self) -> tuple[Node, ...]:
        """The machines that are alive now, by address."""
        alive = [_node(found) for found in self.ray.nodes() if found["Alive"]]
        return tuple(sorted(alive, key=lambda node: (node.address, node.node_id)))


@contextlib.contextmanager
def connected(ray: str, limit_s: float = ANSWER_S) -> Iterator[Cluster]:
    """Connect to a cluster while the context is open; one that it started ends with it.

    Args:
        ray: ``auto``, ``local``, ``HOST:PORT`` or ``ray://HOST:PORT``.
        limit_s: see :func:`patchline.runtime.cluster.knock.knock`.

    Raises:
        ConfigurationError: no such address.
        MissingExtraError: Ray, or its client, is not installed.
        ClusterError: there is no cluster, or it does not answer.
    """
    wanted = None
    if ray != LOCAL:
        wanted = running_address() if ray == AUTO else parse_address(ray)
    module = import_ray()
    if wanted is not None:
        if wanted.is_client:
            check_client()
        knock(wanted, limit_s)
    _init(module, LOCAL if wanted is None else str(wanted))
    try:
        yield Cluster(module, LOCAL if wanted is None else str(wanted))
    finally:
        module.shutdown()


def _init(ray: Any, address: str) -> None:
    # Ray asks on a terminal whether it may report its use; a program of ours reports nothing.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray announces a coming change of it at every start; devices are named by us, GPUs or none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    own = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # of Ray, of its client, of gRPC: all of them say why
        reason = " ".join(str(error).split()) or type(error).__name__
        what = "Ray does not start on this machine" if own else f"{address} cannot be used"
        raise ClusterError(f"{what}: {reason}") from error


def _node(found: dict[str, Any]) -> Node:
    has = found["Resources"]
    return Node(
        node_id=found["NodeID"],
        address=found["NodeManagerAddress"],
        host=found.get("NodeManagerHostname") or found["NodeManagerAddress"],
        cpus=float(has.get("CPU", 0)),
        gpus=float(has.get("GPU", 0)),
        memory_bytes=float(has.get("memory", 0)),
    )
