"""The peers' benchmark end to end, tiny: plain PyTorch beside Patchline, in this environment."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchline.benchmarks.peers import __main__ as command
from patchline.benchmarks.peers import material, worker_torch
from patchline.benchmarks.peers.conversation import Worker
from patchline.benchmarks.peers.part_accuracy import evaluate
from patchline.benchmarks.schema import check_file
from patchline.calibration.judge import judge_pictures
from patchline.export.anomaly_map import GridToMap
from patchline.export.backbone import PatchEmbedder
from patchline.export.demo.pictures import write_demo_data
from patchline.export.evaluation.evaluate import evaluate_class
from patchline.export.evaluation.test_set import load_test_set
from patchline.runtime.contract import ModelSize
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import DataError
from tests.commands import Caller
from tests.programs import run_program

SIDE = 64
PARTS = ("install", "latency", "memory", "coreset", "fit", "accuracy")
RUNNING = "patchline.benchmarks.peers"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn data, and everything that the benchmark leaves."""
    root: Path = tmp_path_factory.mktemp("peers")
    sizes = {"good": 8, "test_good": 3, "test_defective": 5, "size": (96, 96)}
    write_demo_data(root / "data", class_name="part", **sizes)  # type: ignore[arg-type]
    return root


def _words(folder: Path, *words: str, **changes: str) -> list[str]:
    options = {
        "data": str(folder / "data"), "weights": "random", "peers": "torch", "classes": "part",
        "backbones": "resnet18", "bank-rows": "64", "ratios": "0.1", "image-size": str(SIDE),
        "threads": "1", "rounds": "1", "pause": "0", "block": "0.01", "work": str(folder / "work"),
        "out": str(folder / "out"),
    } | changes  # fmt: skip
    given = [f"--{name}={value}" for name, value in options.items()]
    pythons = [f"--python={name}={sys.executable}" for name in ("patchline", "torch")]
    return [*given, *pythons, *words]


def _run(folder: Path, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return run_program(
        [sys.executable, "-m", RUNNING, *_words(folder, *words, **changes)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TERM": "dumb"},
    )


def _newest(folder: Path, pattern: str) -> Path:
    """The code of a model is part of its name, and may change while others work on it."""
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime)


class Kept(Worker):
    """Stays when a part is through with it."""

    def __exit__(self, *raised: object) -> None:
        pass


class KeptWorkers:
    """One worker of each kind for all parts: a start of Python with PyTorch takes seconds."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Kept] = {}

    def __call__(self, name: str, python: Path, *where: Any, **given: Any) -> Worker:
        key = (name, python, *given.values())
        if key not in self._kept:
            self._kept[key] = Kept(name, python, *where, **given)
        return self._kept[key]

    def close(self) -> None:
        for worker in self._kept.values():
            worker.close()


def _run_here(words: list[str]) -> tuple[int, str, str]:
    """Status, stdout and stderr of the command in this process, with few workers."""
    kept, out, err = KeptWorkers(), io.StringIO(), io.StringIO()
    with (
        contextlib.closing(kept),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as left,
    ):
        patch.setattr(material, "Worker", kept)
        patch.setattr(sys, "argv", ["peers", *words])
        command.main()
    return int(left.value.code or 0), out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, dict[str, Any]]:
    status, stdout, stderr = _run_here(_words(folder))
    assert status == 0, stderr
    found = {}
    for path in (folder / "out").rglob("*.json"):
        document = check_file(path)
        found[document.suite.removeprefix("peers-")] = document.results
    assert set(found) == set(PARTS)
    for part in PARTS:
        assert found[part]["failed"] == [], part
        assert f"peers-{part}--" in stdout
    assert "--- latency" in stderr
    return found


# also runs: peers.worker
def test_smoke_peers(results: dict[str, dict[str, Any]]) -> None:
    peers = {"patchline", "patchline-distance", "torch"}
    for part in ("latency", "memory"):
        rows = results[part]["rows"]
        assert {(row["peer"], row["bank_rows"]) for row in rows} == {(peer, 64) for peer in peers}
        assert all(row["model_mib"] > 1 for row in rows)
    by_peer = {row["peer"]: row for row in results["latency"]["rows"]}
    assert all(row["rounds"] == 1 for row in by_peer.values())
    assert by_peer["torch"]["patchline_over_peer"]["median"] > 0
    for row in results["memory"]["rows"]:
        assert 0 < row["base_mib"] <= row["loaded_mib"] <= row["peak_mib"]
    assert {row["peer"] for row in results["install"]["rows"]} == {"patchline", "torch"}


def test_the_coreset_and_the_fit_are_of_all_rows(results: dict[str, dict[str, Any]]) -> None:
    patches = 8 * (SIDE // 8) ** 2
    for row in results["coreset"]["rows"]:
        assert row["rows"] == patches
        assert row["picks"] == max(1, int(patches * row["coreset_ratio"]))
        assert row["extrapolated"] is False
        assert row["picks_measured"] == row["picks"]
    assert len(results["coreset"]["rows"]) == 4
    for row in results["fit"]["rows"]:
        assert row["bank_rows"] == int(patches * 0.1)
        assert row["runs"] == 1
    assert {row["peer"] for row in results["fit"]["rows"]} == {"patchline", "torch"}


def test_the_one_evaluator_gives_what_evaluate_model_gives(
    folder: Path, results: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    rows = {row["peer"]: row for row in results["accuracy"]["rows"]}
    assert rows.keys() == {"patchline", "patchline-distance", "patchline-patchcore", "torch"}
    path = _newest(folder / "work" / "fits" / "patchline", "part-0.1-*/model.onnx")
    with open_engine(path, provider="cpu") as engine:
        expected = evaluate_class(engine, folder / "data", class_name="part").metrics
        tests = load_test_set(folder / "data", "part", ModelSize(height=SIDE, width=SIDE))
        judged = list(judge_pictures(engine, (picture.path for picture in tests.pictures)))
    for name in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro"):
        assert rows["patchline"][name] == pytest.approx(getattr(expected, name), abs=1e-3), name
    scores = np.array([item.score for item in judged], np.float32)
    np.savez(tmp_path / "a.npz", scores=scores, maps=np.stack([i.anomaly_map for i in judged]))
    found = evaluate(tmp_path / "a.npz", tests)
    assert found["aupro"] == pytest.approx(expected.aupro, abs=1e-5)
    np.savez(tmp_path / "b.npz", scores=scores[1:], maps=np.zeros((len(scores) - 1, SIDE, SIDE)))
    with pytest.raises(DataError, match="8 test pictures, 7 scores in"):
        evaluate(tmp_path / "b.npz", tests)
    scores[0] = np.nan
    np.savez(tmp_path / "c.npz", scores=scores, maps=np.zeros((len(scores), SIDE, SIDE)))
    with pytest.raises(DataError, match="NaN or infinite"):
        evaluate(tmp_path / "c.npz", tests)


def test_the_plain_peer_embeds_as_patchline_does(
    folder: Path, results: dict[str, dict[str, Any]]
) -> None:
    (state,) = (folder / "work" / "material").glob("resnet18-*/state.pth")
    frames = torch.from_numpy(np.load(state.with_name("frames.npy")))
    size = ModelSize(height=SIDE, width=SIDE)
    with torch.inference_mode():
        own = PatchEmbedder("resnet18", size, str(state))(frames)
        theirs = worker_torch.Embedder("resnet18", str(state))(frames).permute(0, 2, 3, 1)
    torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)


def test_the_plain_peer_and_patchlines_distance_rule_agree(
    folder: Path, results: dict[str, dict[str, Any]]
) -> None:
    """The same bank, the same frames: the same distances, under Patchline's smoothing."""
    models, material = folder / "work" / "models", folder / "work" / "material"
    theirs = _newest(models / "torch", "resnet18-64-*/model.json")
    own = _newest(models / "patchline-distance", "resnet18-64-*/*.onnx")
    frames = _newest(material, "resnet18-*/frames.npy")
    given = worker_torch.Embedder("resnet18", str(theirs.with_name("backbone.pth")))
    bank = torch.from_numpy(np.load(theirs.with_name("bank.npy")))
    smooth = GridToMap((8, 8), ModelSize(height=SIDE, width=SIDE), smooth=True)
    worker_torch.load(str(theirs.parent), threads=torch.get_num_threads())
    with open_engine(own, provider="cpu") as engine, torch.inference_mode():
        for frame in np.load(frames)[:3]:
            rows = worker_torch.rows_of(given(torch.from_numpy(frame)[None]))
            nearest = torch.cdist(rows.double(), bank.double()).amin(1).float()
            assert worker_torch.judge(frame)[0] == pytest.approx(float(nearest.max()), rel=1e-2)
            found = engine.infer(frame[np.newaxis]).anomaly_map
            expected = smooth(nearest.view(1, 8, 8)).numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-2)


def test_a_peer_that_fails_is_reported_and_the_others_are_measured(
    folder: Path, results: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no torch here >&2\nexit 1\n")
    broken.chmod(0o755)
    words = (f"--python=torch={broken}", "--only=latency")
    done = _run(folder, *words, out=str(tmp_path / "out"), work=str(folder / "work"))
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").rglob("peers-latency--*.json")
    found = json.loads(path.read_text())["results"]
    assert {row["peer"] for row in found["rows"]} == {"patchline", "patchline-distance"}
    (failed,) = found["failed"]
    assert failed["peer"] == "torch"
    assert "ended with status 1: no torch here" in failed["reason"]
    assert "FAILED torch" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"peers": "nobody"}, "there is no peer nobody"),
        ({"only": "nothing"}, "there is no part nothing"),
        ({"bank-rows": "many"}, "--bank-rows has 'many', expected numbers above 0"),
        ({"ratios": "-1"}, "--ratios has '-1'"),
        ({"python": "torch"}, "--python is 'torch', expected NAME=PYTHON"),
        ({"classes": "nobody", "only": "latency"}, "has no class nobody"),
    ],
)
def test_what_is_asked_wrongly_is_one_sentence(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: dict[str, str],
    sentence: str,
) -> None:
    monkeypatch.setattr(command, "_packages", lambda *given: {})  # starts every peer
    done = Caller(monkeypatch, capsys)(command, *_words(folder, **words))
    assert done.status == 1
    assert sentence in done.sentence
