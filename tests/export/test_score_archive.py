"""``score-archive`` on a fitted model: the scores of ``evaluate-model``, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest

from patchline.calibration.judge import judge_pictures
from patchline.runtime.cli import score_archive as command
from patchline.runtime.engine import open_engine
from tests.commands import Caller

from .drawn import CLASS_NAME


@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_are_those_of_evaluation(
    exported: Path,
    drawn_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    batch_size: int,
) -> None:
    images, out = drawn_data / CLASS_NAME / "test", tmp_path / "out"
    words = ("--model", exported, "--images", images, "--out", out, "--threads", 1)
    finished = Caller(monkeypatch, capsys)(command, *words, "--batch-size", batch_size)
    assert finished.status == 0, finished.stderr
    frame = pandas.read_parquet(out)
    with open_engine(exported, threads=1) as engine:
        judged = list(judge_pictures(engine, [images / path for path in frame["path"]]))
    scores = np.array([one.score for one in judged])
    if batch_size == 1:
        assert (frame["score"] == scores).all()
    np.testing.assert_allclose(frame["score"], scores, rtol=1e-5)
    assert set(frame["verdict"]) == {"good", "anomalous"}
