"""``export-model --track``: what a tracker is told of a fit, however it ends."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchline.export.cli import evaluate_model
from patchline.export.cli.tracking_options import TrackerName, track_settings
from patchline.export.fit import FittedModel
from patchline.export.making import make_class
from patchline.export.making.timed_steps import TimedSteps
from patchline.export.tracking import create
from patchline.export.tracking.base import Tracker
from patchline.export.tracking.settings import TrackSettings
from patchline.runtime.bank import load_bank
from patchline.runtime.errors import ConfigurationError, MissingExtraError
from patchline.runtime.progress import SilentSteps
from tests.commands import Call, Caller

from .drawn import CLASS_NAME
from .recorder import Recorder

QUICK_WORDS = ("--backbone", "resnet18", "--weights", "random", "--image-size", "64")
METRICS = {
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1_max",
    "pixel_iou_max",
    "aupro",
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, fitted: FittedModel, exported: Path) -> None:
    """Nothing is fitted: every class gets the drawn class's model."""

    def copy(fitted: FittedModel, settings: Any, out: Path, *rest: Any) -> Path:
        shutil.copytree(exported.parent, out, dirs_exist_ok=True)
        return out / exported.name

    monkeypatch.setattr(make_class, "fit", lambda *rest: fitted)
    monkeypatch.setattr(make_class, "export_model", copy)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """The trackers that were made."""
    made: list[Recorder] = []

    def make(settings: TrackSettings, run_name: str) -> Tracker:
        made.append(Recorder(settings, run_name))
        return made[-1]

    monkeypatch.setattr(create, "create_tracker", make)
    return made


def test_a_fit_its_metrics_its_pictures_and_its_model(
    call: Call, runs: list[Recorder], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ("--bank", "external", "--coreset-ratio", "0.1", "--track", "wandb")
    finished = call("--cls", CLASS_NAME, *QUICK_WORDS, *words, "--track-name", "friday")
    assert finished.status == 0, finished.stderr
    (run,) = runs
    assert (run.run_name, run.status) == ("friday", "finished")
    assert run.settings == TrackSettings(track="wandb", name="friday")
    assert run.configured["class"] == CLASS_NAME and run.configured["pictures"] == 12
    assert run.configured["method"] == "patchcore-noising"
    assert run.configured["coreset_ratio"] == 0.1 and "train" not in run.configured

    path, graph = Path("models") / f"{CLASS_NAME}.bank", Path("models/resnet18-64.onnx")
    manifest = load_bank(path).manifest
    figures = run.figures
    assert figures["memory_bank/rows"] == manifest.memory_bank.rows  # type: ignore[union-attr]
    assert figures["threshold"] == manifest.threshold.value
    assert figures["normal_scores/largest"] == max(manifest.normal_scores.scores)
    for time in ("embedding", "coreset", "fit", "export", "whole"):
        assert 0 < figures[f"time/{time}_s"] <= figures["time/whole_s"]
    assert figures["time/embedding_s"] < figures["time/fit_s"]

    judged = Caller(monkeypatch, capsys)(
        evaluate_model, "--model", graph, "--bank", path, "--json"
    ).document  # fmt: skip
    metrics = judged["classes"][CLASS_NAME]
    assert metrics.keys() == METRICS
    for name, value in metrics.items():
        for below in (CLASS_NAME, "mean", f"best/{CLASS_NAME}", "best/mean"):
            assert figures[f"metrics/{below}/{name}"] == pytest.approx(value)
        for below in (CLASS_NAME, "mean"):
            assert run.results[f"metrics/best/{below}/{name}"] == pytest.approx(value)

    ((uploaded, metadata),) = run.models
    assert uploaded == path
    assert metadata["epoch"] is None and metadata["class"] == CLASS_NAME
    assert metadata["image_auroc"] == pytest.approx(metrics["image_auroc"])
    (pictures,) = run.pictures.values()
    assert list(run.pictures) == [f"examples/{CLASS_NAME}"]
    assert 2 <= len(pictures) <= 4
    for caption, picture in pictures.items():
        kind, _, file = caption.partition("/")  # and no score: the caption is how it is known again
        assert kind in ("good", "chip", "contamination") and file in ("000.png", "001.png")
        assert picture.dtype == np.uint8 and picture.shape == (64, 128, 3)


@pytest.mark.usefixtures("quick")
def test_each_class_has_a_run_and_the_mean_is_of_those_that_have_metrics(
    call: Call, runs: list[Recorder], drawn_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(drawn_data / CLASS_NAME, tmp_path / "data" / "other")
    for path in (tmp_path / "data" / "other" / "test" / "chip").iterdir():
        path.unlink()
    shutil.rmtree(tmp_path / "data" / "other" / "ground_truth")
    words = ("--track", "tensorboard", "--track-name", "friday", "--track-log-every", "3")
    finished = call("--cls", "lids", CLASS_NAME, "other", *QUICK_WORDS, *words)
    assert finished.status == 0, finished.stderr
    assert [run.run_name for run in runs] == ["friday-lids", f"friday-{CLASS_NAME}", "friday-other"]
    assert [run.settings.name for run in runs] == [run.run_name for run in runs]
    assert {run.settings.log_every for run in runs} == {3}
    assert [run.status for run in runs] == ["finished"] * 3
    plain, first, second = (run.figures for run in runs)
    assert not [name for name in plain if name.startswith("metrics/")] and not runs[0].pictures
    assert len(runs[0].models) == 1 and "image_auroc" not in runs[0].models[0][1]
    assert "metrics/other/pixel_auroc" not in second  # without masks
    assert second["metrics/mean/pixel_auroc"] == first[f"metrics/{CLASS_NAME}/pixel_auroc"]
    assert second["metrics/mean/image_ap"] == pytest.approx(
        (first[f"metrics/{CLASS_NAME}/image_ap"] + second["metrics/other/image_ap"]) / 2
    )


def test_every_option_reaches_the_settings() -> None:
    found = track_settings(
        TrackerName.WANDB, project="line", entity="team", name="friday", tags="a, b,", notes="n",
        log_every=5, folder=Path("there"), upload_model=False, upload_pictures=False,
    )  # fmt: skip
    assert found == TrackSettings(
        track="wandb", project="line", entity="team", name="friday", tags=("a", "b"), notes="n",
        log_every=5, folder=Path("there"), upload_model=False, upload_pictures=False,
    )  # fmt: skip


@pytest.mark.usefixtures("quick")
class TestTrouble:
    def test_what_cannot_be_judged_is_a_warning(self, call: Call, runs: list[Recorder]) -> None:
        broken = Path("data") / CLASS_NAME / "test" / "good" / "000.png"
        broken.write_bytes(b"broken")
        finished = call("--cls", CLASS_NAME, *QUICK_WORDS, "--track", "wandb")
        assert finished.status == 0
        assert f"{CLASS_NAME} is exported, and not evaluated: cannot read" in finished.stderr
        assert runs[0].status == "finished" and len(runs[0].models) == 1
        assert not runs[0].pictures

    def test_problems_of_the_masks_are_told(self, call: Call, runs: list[Recorder]) -> None:
        (Path("data") / CLASS_NAME / "ground_truth" / "chip" / "000_mask.png").unlink()
        finished = call("--cls", CLASS_NAME, *QUICK_WORDS, "--track", "wandb")
        assert finished.status == 0 and "warning: gasket: " in finished.stderr
        assert "test/chip/000.png" in finished.stderr
        assert f"metrics/{CLASS_NAME}/image_auroc" in runs[0].figures
        assert f"metrics/{CLASS_NAME}/pixel_auroc" not in runs[0].figures

    @pytest.mark.parametrize(
        ("error", "ended", "exit_status"),
        [
            (ConfigurationError("no"), "failed", 1),
            (KeyboardInterrupt(), "interrupted", 130),
            (ValueError("a bug"), "failed", None),
        ],
    )
    def test_how_it_ended(
        self,
        call: Call,
        runs: list[Recorder],
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
        ended: str,
        exit_status: int | None,
    ) -> None:
        def fail(*rest: Any) -> None:
            raise error

        monkeypatch.setattr(make_class, "fit", fail)
        words = ("--cls", CLASS_NAME, *QUICK_WORDS, "--track", "wandb")
        if exit_status is None:
            with pytest.raises(ValueError, match="a bug"):
                call(*words)
        else:
            assert call(*words).status == exit_status
        (run,) = runs
        assert (run.status, run.models, run.logged) == (ended, [], [])
        assert run.configured["class"] == CLASS_NAME

    def test_a_tracker_that_cannot_be_had_is_told_before_the_fit(
        self, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*rest: Any) -> Tracker:
            raise MissingExtraError('Install it with: pip install "patchline[track]"')

        monkeypatch.setattr(create, "create_tracker", refuse)
        monkeypatch.setattr(make_class, "fit", lambda *rest: pytest.fail("it was fitted"))
        finished = call("--cls", CLASS_NAME, *QUICK_WORDS, "--track", "wandb")
        assert finished.status == 1 and "patchline[track]" in finished.sentence


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("words", [(), ("--track", "none")])
def test_nothing_is_tracked_or_judged_unless_asked(
    call: Call, runs: list[Recorder], words: tuple[str, ...]
) -> None:
    (Path("data") / CLASS_NAME / "test" / "good" / "000.png").write_bytes(b"broken")
    finished = call("--cls", CLASS_NAME, *QUICK_WORDS, *words)
    assert finished.status == 0 and "evaluated" not in finished.stderr
    assert runs == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--track-project", "p"), "--track-project would do nothing, since nothing is tracked"),
        (("--track", "none", "--track-tags", "a"), "--track-tags would do nothing"),
        (("--track-notes", "n", "--no-track-model"), "--track-notes, --track-model would do"),
        (("--track-pictures",), "--track-pictures would do nothing"),
        (("--track", "wandb", "--track-log-every", "0"), "--track-log-every: input should be"),
        (("--track", "wandb", "--track-project", ""), "--track-project: string should have at"),
        (("--track", "wandb", "--track-name", "n" * 129), "--track-name: string should have at"),
        (("--track", "wandb", "--track-tags", "t" * 65), "--track-tags: string should have at"),
    ],
)
def test_options_that_make_no_sense(
    call: Call, runs: list[Recorder], words: tuple[str, ...], says: str
) -> None:
    finished = call("--cls", CLASS_NAME, *QUICK_WORDS, *words)
    assert finished.status == 1 and says in finished.sentence
    assert runs == [] and not Path("models").exists()


class TestTimes:
    def test_the_same_step_adds_up_and_others_do_not_count(self) -> None:
        now = iter([0.0, 2.0, 10.0, 20.0, 21.0])
        steps = TimedSteps(SilentSteps(), lambda: next(now))
        for name in ("Embedding 12 pictures", "Judging", "Embedding 3 pictures"):
            with steps.step(name, 1) as advance:
                advance(1)
        assert steps.times == {"time/embedding_s": 3.0}

    def test_what_failed_has_no_time(self) -> None:
        steps = TimedSteps(SilentSteps())
        with pytest.raises(ValueError, match="no"), steps.timed("time/fit_s"):
            raise ValueError("no")
        assert steps.times == {}
