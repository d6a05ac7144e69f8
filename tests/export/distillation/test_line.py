"""A distilled model through every command after the export, which know nothing of the method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchline.calibration.cli import calibrate_threshold
from patchline.calibration.threshold import derive_threshold
from patchline.export.cli import evaluate_model, export_model
from patchline.export.distillation import convert, fit
from patchline.export.distillation.convert import ConvertedDistilled
from patchline.export.distillation.fit import DistilledModel
from patchline.runtime.cli import benchmark_engine, run_camera
from patchline.runtime.contract import load_manifest, manifest_path
from patchline.runtime.engine import open_engine
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import preprocess
from tests.commands import Caller, Finished

from ..drawn import CLASS_NAME, write_good

Run = Callable[..., Finished]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; it must go well."""
    caller = Caller(monkeypatch, capsys)

    def call(command: Any, *words: object) -> Finished:
        done = caller(command, *words)
        assert done.status == 0, done.stderr
        return done

    return call


def scores_of(model: Path, paths: list[Path]) -> list[float]:
    with open_engine(model, provider="cpu") as engine:
        size = engine.manifest.model_size
        frames = [preprocess(read_image(path), size) for path in paths]
        return [float(engine.infer(frame[np.newaxis]).image_score[0]) for frame in frames]


def test_run_camera_judges_frames(run: Run, published: Path, drawn_data: Path) -> None:
    folder = drawn_data / CLASS_NAME / "test"
    words = ("--source", folder, "--headless", "--provider", "cpu")
    verdicts = run(run_camera, "--engine", published, *words).lines
    expected = scores_of(published, [folder / verdict["file"] for verdict in verdicts])
    threshold = load_manifest(manifest_path(published)).threshold.value
    assert len(verdicts) == 4
    for verdict, score in zip(verdicts, expected, strict=True):
        assert verdict["score"] == pytest.approx(score, rel=1e-5)
        assert verdict["anomalous"] == (verdict["score"] >= threshold)


def test_evaluate_model_gives_metrics_and_a_report(
    run: Run, published: Path, drawn_data: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    done = run(evaluate_model, "--model", published, "--data", drawn_data, "--report", report)
    assert CLASS_NAME in done.stdout
    page = (report / "index.html").read_text()
    assert "1 epoch, loss" in page and "cosine (reverse-distillation)" in page
    assert "Memory bank" not in page


def test_calibrate_threshold_takes_pictures_of_the_line(
    run: Run, own_copy: Path, tmp_path: Path
) -> None:
    before = load_manifest(manifest_path(own_copy))
    paths = write_good(tmp_path / "line", 6, first_seed=900)
    run(calibrate_threshold, "--model", own_copy, "--images", tmp_path / "line")
    after = load_manifest(manifest_path(own_copy))
    assert after.normal_scores.source == "line"
    assert after.normal_scores.scores == pytest.approx(sorted(scores_of(own_copy, paths)), rel=1e-5)
    assert after.threshold == derive_threshold(after.normal_scores, 0.05)
    assert after.distillation == before.distillation is not None
    with open_engine(own_copy, provider="cpu") as engine:  # still fits the copy in the file
        assert engine.manifest.threshold == after.threshold


def test_calibrate_threshold_takes_another_rate(run: Run, own_copy: Path) -> None:
    before = load_manifest(manifest_path(own_copy))
    run(calibrate_threshold, "--model", own_copy, "--false-alarm-rate", "0.4")
    after = load_manifest(manifest_path(own_copy))
    assert after.threshold == derive_threshold(before.normal_scores, 0.4)


def test_benchmark_engine_measures_it(run: Run, published: Path) -> None:
    quick = ("--warm-up", 0, "--iterations", 3, "--duration", 0.01, "--provider", "cpu")
    described = run(benchmark_engine, "--engine", published, *quick, "--json").document["engine"]
    assert described["method"] == "reverse-distillation"
    assert described["bank_rows"] is described["search"] is None


def test_export_model_gives_it_in_half_precision(
    run: Run,
    distilled: DistilledModel,
    converted: ConvertedDistilled,
    drawn_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fit, "fit_distillation", lambda *given, **options: distilled)
    forced: list[bool] = []

    def convert_distilled(*given: Any, is_forced: bool, data: Path) -> ConvertedDistilled:
        assert data == drawn_data
        forced.append(is_forced)
        return converted

    monkeypatch.setattr(convert, "convert_distilled", convert_distilled)
    words = ("--cls", CLASS_NAME, "--data", drawn_data, "--out", tmp_path, "--precision", "fp16")
    small = ("--backbone", "resnet18", "--weights", "random", "--image-size", 64)
    done = run(export_model, *words, "--method", "reverse-distillation", *small, "--device", "cpu")
    assert "1 epoch of batch 4" in done.stdout and "against float32" in done.stdout
    assert "memory bank" not in done.stdout
    assert "the FP16 model was compared with float32 on 2 pictures" in done.stderr
    assert load_manifest(tmp_path / "gasket.json").precision == "fp16" and forced == [False]
