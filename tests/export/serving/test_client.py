"""docs/examples/triton_client.py against a server of the repository that was written."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from patchline.export.serving.found_model import find_model
from patchline.export.serving.triton import serve_triton
from patchline.runtime.bank import load_bank, save_bank
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import EngineError, MissingExtraError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import preprocess

from ..drawn import CLASS_NAME
from .conftest import OTHER, other_bank
from .stand_in import Repository, grpc_server, http_server

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "triton_client.py"


@pytest.fixture(scope="module")
def client() -> Iterator[ModuleType]:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("triton_client", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["triton_client"] = module  # dataclasses look there
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["triton_client"]


@pytest.fixture(scope="module")
def repository(
    exported: Path, external_export: Path, tmp_path_factory: pytest.TempPathFactory
) -> Repository:
    """A model with its bank inside, and one in parts; only to be read."""
    place = tmp_path_factory.mktemp("served") / "triton"
    serve_triton(find_model(exported.parent, CLASS_NAME), place)
    serve_triton(find_model(external_export, OTHER), place)
    return Repository(place)


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, repository: Repository) -> Iterator[tuple[str, bool]]:
    serve = http_server if request.param == "http" else grpc_server
    with serve(repository) as address:
        yield address, request.param == "grpc"


@pytest.fixture
def pictures(drawn_data: Path) -> list[Path]:
    return sorted((drawn_data / CLASS_NAME / "test").rglob("*.png"))


def call(
    client: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: object
) -> tuple[int, list[dict[str, Any]], str]:
    monkeypatch.setattr(sys, "argv", ["triton_client.py", *map(str, words)])
    status = client.main()
    out, err = capsys.readouterr()
    return status, [json.loads(line) for line in out.splitlines()], err


@pytest.mark.parametrize("name", [CLASS_NAME, OTHER])
def test_scores_and_verdicts_are_those_of_the_engine(
    client: ModuleType,
    url: tuple[str, bool],
    name: str,
    pictures: list[Path],
    exported: Path,
    external_export: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, is_grpc = url
    words = ["--url", address, "--model", name, "--batch", 3, *["--grpc"] * is_grpc, *pictures]
    status, lines, _ = call(client, monkeypatch, capsys, *words)
    assert status == 0
    model = find_model(exported.parent if name == CLASS_NAME else external_export, name)
    size, threshold = model.manifest.model_size, model.manifest.threshold
    frames = np.stack([preprocess(read_image(path), size) for path in pictures])
    with open_engine(model.onnx, provider="cpu", bank=model.bank) as engine:
        expected = engine.infer(frames)
    assert [line["path"] for line in lines] == [str(path) for path in pictures]
    found = [line["score"] for line in lines]
    np.testing.assert_allclose(found, expected.image_score, rtol=1e-5)
    assert {line["threshold"] for line in lines} == {threshold.value}
    assert [line["anomalous"] for line in lines] == [score >= threshold.value for score in found]
    peaks = expected.anomaly_map.max((1, 2))
    assert [line["region"] for line in lines] == list(peaks >= threshold.map_value)


def test_a_frame_of_another_size_is_refused_by_the_server(
    client: ModuleType, url: tuple[str, bool]
) -> None:
    model = client.TritonModel(url[0], CLASS_NAME, grpc=url[1])
    try:
        with pytest.raises(EngineError, match=r"Triton refused: unexpected shape for frames"):
            model.judge(np.zeros((1, 32, 64, 3), np.uint8))
        with pytest.raises(EngineError, match="unexpected shape for frames"):
            model.judge(np.zeros((9, 64, 64, 3), np.uint8))  # more than a batch
        assert len(model.judge(np.zeros((8, 64, 64, 3), np.uint8))) == 8
    finally:
        model.close()


def test_an_unknown_model_is_named(
    client: ModuleType,
    url: tuple[str, bool],
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--url", url[0], "--model", "cap", *["--grpc"] * url[1], pictures[0]]
    status, lines, err = call(client, monkeypatch, capsys, *words)
    assert (status, lines) == (1, [])
    assert err == "error: Triton refused: Request for unknown model: 'cap' is not found\n"


@pytest.mark.parametrize("is_grpc", [False, True])
def test_a_server_that_is_away_is_a_sentence(
    client: ModuleType,
    is_grpc: bool,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = f"127.0.0.1:{held.getsockname()[1]}"
    words = ["--url", address, "--model", "cap", *["--grpc"] * is_grpc, pictures[0]]
    status, lines, err = call(client, monkeypatch, capsys, *words)
    assert (status, lines) == (1, [])
    assert err.startswith("error: ") and err.count("\n") == 1


def test_a_model_of_another_maker_is_refused(
    client: ModuleType, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = repository.models[CLASS_NAME].config.__class__(name="cap", backend="python")
    other = type("Other", (), {"config": config})()
    monkeypatch.setitem(repository.models, "cap", other)
    with http_server(repository) as address, pytest.raises(EngineError, match="was not written by"):
        client.TritonModel(address, "cap")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("threshold", "high", "could not convert string to float: 'high'"),
        ("threshold", "nan", "nan is no threshold"),
        ("map_threshold", "inf", "inf is no threshold"),
        ("height", "6.4", "invalid literal for int"),
    ],
)
def test_a_parameter_that_is_no_number_is_a_sentence(
    client: ModuleType,
    exported: Path,
    tmp_path: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    said: str,
) -> None:
    serve_triton(find_model(exported.parent, CLASS_NAME), tmp_path / "triton")
    config = tmp_path / "triton" / CLASS_NAME / "config.pbtxt"
    text, changed = re.subn(
        rf'(key: "patchline.{name}"\n  value {{ string_value: )"[^"]*"',
        rf'\g<1>"{value}"',
        config.read_text(),
    )
    assert changed == 1
    config.write_text(text)
    with http_server(Repository(tmp_path / "triton")) as address:
        words = ["--url", address, "--model", CLASS_NAME, pictures[0]]
        status, lines, err = call(client, monkeypatch, capsys, *words)
    assert (status, lines) == (1, [])
    assert err.startswith(f"error: the parameters of {CLASS_NAME} on the server were changed: ")
    assert said in err and err.count("\n") == 1


def test_no_pictures_in_a_request_is_a_usage_error(
    client: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        call(client, monkeypatch, capsys, "--model", "cap", "--batch", 0, "a.png")
    assert left.value.code == 2
    assert "--batch is 0, expected 1 or more" in capsys.readouterr().err


def test_the_version_of_the_threshold_is_asked_for_and_followed(
    client: ModuleType, external: Path, exported: Path, tmp_path: Path
) -> None:
    """A new model: no score is held against the threshold of the old one."""
    models = tmp_path / "models"
    models.mkdir()
    for path in exported.parent.iterdir():
        (models / path.name).write_bytes(path.read_bytes())
    serve_triton(find_model(models, CLASS_NAME), tmp_path / "triton")
    repository = Repository(tmp_path / "triton")
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    with http_server(repository) as address:
        model = client.TritonModel(address, CLASS_NAME)
        try:
            model.judge(frames)
            folder = tmp_path / "triton" / CLASS_NAME
            (folder / "1").rename(folder / "2")
            config = folder / "config.pbtxt"
            text = config.read_text().replace(
                'key: "patchline.model_version"\n  value { string_value: "1" }',
                'key: "patchline.model_version"\n  value { string_value: "2" }',
            )
            config.write_text(text)
            repository.load()
            (verdict,) = model.judge(frames)
            assert verdict["version"] == "2"
        finally:
            model.close()
    assert repository.asked == [(CLASS_NAME, 1), (CLASS_NAME, 1), (CLASS_NAME, 2)]


def test_a_new_threshold_of_a_class_in_parts_is_read_from_its_own_model(
    client: ModuleType, external: Path, tmp_path: Path
) -> None:
    path = external / f"{OTHER}.bank"
    save_bank(other_bank(load_bank(path), 1.1), path)
    serve_triton(find_model(external, OTHER), tmp_path / "triton")
    with http_server(Repository(tmp_path / "triton")) as address:
        model = client.TritonModel(address, OTHER)
        try:
            assert model.served.threshold == load_bank(path).manifest.threshold.value
        finally:
            model.close()


def test_a_picture_that_cannot_be_read_is_named(
    client: ModuleType,
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with http_server(repository) as address:
        words = ["--url", address, "--model", CLASS_NAME, tmp_path / "a.png"]
        status, _, err = call(client, monkeypatch, capsys, *words)
    assert status == 1
    assert "a.png" in err


def test_a_missing_library_says_what_to_install(
    client: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tritonclient.http", "tritonclient.grpc"):
        monkeypatch.setitem(sys.modules, name, None)
    for is_grpc in (False, True):
        with pytest.raises(MissingExtraError, match=r'pip install "patchline\[triton\]"'):
            client.TritonModel("localhost:8000", "cap", grpc=is_grpc)
