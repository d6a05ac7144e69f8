"""A look at every node before the first task: versions alike, and the same shared folders seen."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from patchline.runtime.cluster.connect import Cluster, Node
from patchline.runtime.cluster.facts import Facts, gather_facts
from patchline.runtime.errors import ClusterError
from patchline.runtime.files import write_errors

PROBE_S = 120.0
"""How long a node may take to start a process of its own and answer."""

Answers = dict[str, "Facts | str"]
"""By the node's id: what it says, or a phrase about why it says nothing."""


def check_nodes(
    cluster: Cluster,
    *,
    paths: Sequence[Path],
    out: Path,
    modules: Sequence[str] = (),
    limit_s: float = PROBE_S,
    ask: Callable[..., Answers] | None = None,
) -> tuple[Node, ...]:
    """Look whether every node can do what this machine could.

    Args:
        cluster: whose nodes.
        paths: absolute paths of files and folders that every node must see.
        out: absolute path of the folder of results, which all must share; it is there.
        modules: whose versions must be alike (``MAJOR.MINOR``), by their names in Python; one that
            is not on this machine must be alike on all nodes.
        limit_s: how long each node may take to answer.
        ask: asks the nodes, for tests.

    Returns:
        The nodes.

    Raises:
        ClusterError: a node does not fit; the sentence names its address and all that is wrong.
        WriteError: ``out`` cannot be written to.
    """
    nodes = cluster.nodes()
    with _token(out) as (file, content):
        asked = (tuple(modules), tuple(map(str, paths)), str(file))
        answers = (ask or ask_nodes)(cluster, nodes, asked, limit_s)
        own = gather_facts(*asked)
    wanted = _wanted(own, {node.address: answers[node.node_id] for node in nodes})
    problems = [
        (node.address, found)
        for node in nodes
        if (found := _problems(answers[node.node_id], own, wanted, out, content))
    ]
    if problems:
        raise ClusterError(
            ". ".join(
                f"node {address} cannot be used: {'; '.join(found)}" for address, found in problems
            )
        )
    return nodes


def ask_nodes(
    cluster: Cluster, nodes: Sequence[Node], asked: tuple[Any, ...], limit_s: float
) -> Answers:
    """What each node says, asked at once.

    Args:
        cluster: to ask in.
        nodes: to ask.
        asked: arguments of :func:`patchline.runtime.cluster.facts.gather_facts`.
        limit_s: how long each may take.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray = cluster.ray
    probe = ray.remote(num_cpus=0, max_retries=0)(gather_facts)  # a busy node answers as well
    tasks = {
        node.node_id: probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        ).remote(*asked)
        for node in nodes
    }
    done, _ = ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=limit_s)
    return {
        node: _answer(ray, task) if task in done else _late(ray, task, limit_s)
        for node, task in tasks.items()
    }


def _answer(ray: Any, task: Any) -> Facts | str:
    try:
        found: Facts = ray.get(task)
    except Exception as error:  # Ray's own, and whatever the node's Python says of our function
        last = str(error).strip().splitlines()[-1:]
        if "patchline" in str(error) and "ModuleNotFoundError" in str(error):
            return "Patchline is not installed in the Python that Ray runs there"
        return f"it cannot run Patchline ({' '.join(last) or type(error).__name__})"
    return found


def _late(ray: Any, task: Any, limit_s: float) -> str:
    ray.cancel(task, force=True)
    return f"it does not answer within {limit_s:g} s"


def _wanted(own: Facts, answers: Answers) -> dict[str, tuple[str | None, str]]:
    """By module: the version that all nodes must have, and who has it, by their addresses."""
    wanted = {name: (found, "this machine") for name, found in own.versions.items()}
    for address, facts in answers.items():
        for name, found in [] if isinstance(facts, str) else facts.versions.items():
            if wanted.get(name, (None, ""))[0] is None:  # such as TensorRT, where no GPU is here
                wanted[name] = (found, address)
    return wanted


def _problems(
    found: Facts | str,
    own: Facts,
    wanted: dict[str, tuple[str | None, str]],
    out: Path,
    token: str,
) -> list[str]:
    if isinstance(found, str):
        return [found]
    problems = [
        f"it has {name} {found.versions.get(name) or 'not at all'}, {who} {expected}"
        for name, (expected, who) in wanted.items()
        if found.versions.get(name) != expected
    ]
    if not problems and found.source_sha256 != own.source_sha256:
        problems.append(
            f"its Patchline {own.versions['patchline']} is of other source code than this "
            "machine's: install the same on both"
        )
    missing = [path for path in found.missing if path not in own.missing]
    if missing:
        problems.append(f"it does not see {', '.join(missing)}, which must be shared storage")
    if found.token != token:
        problems.append(
            f"it does not see what is written to {out} here: give a folder of shared storage, at "
            "the same path everywhere"
        )
    return problems


@contextlib.contextmanager
def _token(out: Path) -> Iterator[tuple[Path, str]]:
    """A file in ``out`` that nobody else has, with its content."""
    content = secrets.token_hex(16)
    file = out / f".patchline-seen-{secrets.token_hex(4)}"
    with write_errors(out):
        file.write_text(content, encoding="utf-8")
    try:
        yield file, content
    finally:
        file.unlink(missing_ok=True)
