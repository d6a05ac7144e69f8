"""What must be alike on every node, with nodes that are not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.cluster import facts
from patchline.runtime.cluster.connect import Cluster, Node
from patchline.runtime.cluster.facts import Facts, gather_facts, source_digest
from patchline.runtime.cluster.nodes import Answers, check_nodes
from patchline.runtime.errors import ClusterError, WriteError


class FakeRay:
    """Knows two nodes that live and one that does not."""

    @staticmethod
    def nodes() -> list[dict[str, Any]]:
        return [
            {
                "NodeID": name,
                "Alive": name != "gone",
                "NodeManagerAddress": f"10.0.0.{number}",
                "NodeManagerHostname": name,
                "Resources": {"CPU": 4.0, "memory": 8e9},
            }
            for number, name in enumerate(("one", "two", "gone"), start=1)
        ]


CLUSTER = Cluster(FakeRay, "10.0.0.1:6379")


def answering(change: Callable[[Facts], Facts | str]) -> Callable[..., Answers]:
    """The second node says something else than this machine."""

    def ask(
        cluster: Cluster, nodes: Sequence[Node], asked: tuple[Any, ...], limit_s: float
    ) -> Answers:
        assert [node.node_id for node in nodes] == ["one", "two"]
        own = gather_facts(*asked)
        return {"one": own, "two": change(own)}

    return ask


def changed(**versions: str | None) -> Callable[[Facts], Facts | str]:
    return lambda own: replace(own, versions={**own.versions, **versions})


def test_nodes_that_are_alike(tmp_path: Path) -> None:
    nodes = check_nodes(
        CLUSTER, paths=[tmp_path], out=tmp_path, modules=["numpy"], ask=answering(lambda own: own)
    )
    assert [(node.address, node.cpus, node.gpus) for node in nodes] == [
        ("10.0.0.1", 4.0, 0.0),
        ("10.0.0.2", 4.0, 0.0),
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (changed(patchline="9.9.9"), "it has patchline 9.9.9, this machine "),
        (changed(python="3.99"), "it has python 3.99, this machine 3."),
        (changed(numpy=None), "it has numpy not at all, this machine "),
        (lambda own: replace(own, source_sha256="0"), "is of other source code"),
        (lambda own: replace(own, missing=("/data",)), "it does not see /data, which must be"),
        (lambda own: replace(own, token=None), "it does not see what is written to "),
        (lambda own: "it does not answer within 120 s", "it does not answer within 120 s"),
    ],
)
def test_a_node_that_does_not_fit_is_named(
    change: Callable[[Facts], Facts | str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError) as caught:
        check_nodes(CLUSTER, paths=[], out=tmp_path, modules=["numpy"], ask=answering(change))
    assert str(caught.value).startswith("node 10.0.0.2 cannot be used: ")
    assert sentence in str(caught.value)
    assert "10.0.0.1 " not in str(caught.value)


@pytest.mark.parametrize(
    ("owners", "found"),
    [
        ({"numpy": ["numpy"], "fast": ["fast-gpu"]}, "1.22"),
        ({"fast": ["fast-gpu", "fast"]}, "1.20 and 1.22"),
        ({}, None),
    ],
)
def test_a_module_is_known_whatever_package_it_is_from(
    owners: dict[str, list[str]], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"fast": "1.20.3", "fast-gpu": "1.22.0.post1", "numpy": "2.4.0"}
    monkeypatch.setattr(facts, "packages_distributions", lambda: owners)
    monkeypatch.setattr(facts, "version", versions.__getitem__)
    assert facts.module_versions(["fast"]) == {"fast": found}


def test_a_module_of_no_package_is_asked_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_the_system_9.py").write_text("__version__ = '4.10.0'")
    monkeypatch.syspath_prepend(tmp_path)
    assert facts.module_versions(["of_the_system_9"]) == {"of_the_system_9": "4.10"}
    assert None not in facts.module_versions(["cv2", "onnxruntime"]).values()


def test_what_only_nodes_have_must_be_alike_on_them(tmp_path: Path) -> None:
    def ask(
        cluster: Cluster, nodes: Sequence[Node], asked: tuple[Any, ...], limit_s: float
    ) -> Answers:
        own = gather_facts(*asked)
        assert own.versions["no_such_trt"] is None
        return {
            name: replace(own, versions={**own.versions, "no_such_trt": found})
            for name, found in zip(("one", "two"), given, strict=True)
        }

    given = ("10.3", "10.3")
    assert len(check_nodes(CLUSTER, paths=[], out=tmp_path, modules=["no_such_trt"], ask=ask)) == 2
    given = ("10.3", "10.9")
    with pytest.raises(ClusterError, match=r"10\.0\.0\.2 cannot .* 10\.9, 10\.0\.0\.1 10\.3"):
        check_nodes(CLUSTER, paths=[], out=tmp_path, modules=["no_such_trt"], ask=ask)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    def both(own: Facts) -> Facts:
        return replace(own, versions={**own.versions, "python": "2.7"}, token="of another folder")

    with pytest.raises(ClusterError, match=r"python 2\.7.*; it does not see what is written"):
        check_nodes(CLUSTER, paths=[], out=tmp_path, ask=answering(both))


def test_a_folder_of_results_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        check_nodes(CLUSTER, paths=[], out=tmp_path / "no", ask=answering(lambda own: own))


def test_the_digest_is_of_the_code_that_runs() -> None:
    assert len(source_digest()) == 64
    assert gather_facts((), (), None).source_sha256 == source_digest()
    assert gather_facts(("no-such-package",), ("/no/such",), "/no/such") == replace(
        gather_facts((), (), None),
        versions={**gather_facts((), (), None).versions, "no-such-package": None},
        missing=("/no/such",),
    )
