"""Addresses of Ray clusters: their forms, and the cluster that ``auto`` means."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchline.runtime.cluster.address import Address, parse_address, running_address
from patchline.runtime.errors import ClusterError, ConfigurationError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.5:6379", Address("10.0.0.5", 6379)),
        ("ray://head.plant:10001", Address("head.plant", 10001, is_client=True)),
        ("[::1]:6379", Address("::1", 6379)),
    ],
)
def test_an_address_and_back(text: str, address: Address) -> None:
    assert parse_address(f" {text} ") == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "head", "head:", "head:0", "head:65536", "http://head:80", "a:1:2", "ray://head"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected auto, local, HOST:PORT"):
        parse_address(text)


def test_auto_is_the_environments_cluster_and_then_the_last_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ClusterError, match=r"finds no Ray cluster.*ray start --head"):
        running_address()
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:6380\n")
    assert running_address() == Address("127.0.0.1", 6380)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert running_address() == Address("head", 10001, is_client=True)
    monkeypatch.setenv("RAY_ADDRESS", "somewhere")
    with pytest.raises(ConfigurationError, match="RAY_ADDRESS is 'somewhere'"):
        running_address()
