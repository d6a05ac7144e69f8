"""A tracker takes everything in order, and neither raises nor waits whatever its backend does."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchline.export.tracking.background import BackgroundTracker
from patchline.export.tracking.base import Tracker
from patchline.export.tracking.waiting import MOST_WAITING
from patchline.export.tracking.worker import MOST_FAILURES, Worker

from .fakes import Raising, Remembering, Stuck, Told, model_file, tracker_of


@pytest.fixture
def told() -> Told:
    return Told()


def call_everything(tracker: Tracker, folder: Path, step: int = 0) -> None:
    tracker.config({"lr": 0.1})
    tracker.log({"loss": 1.0}, step=step)
    tracker.images("examples", {"one": np.zeros((2, 4, 3), np.uint8)}, step=step)
    tracker.model(model_file(folder), metadata={"epoch": 3})
    tracker.summary({"best": 0.9})


def test_calls_arrive_in_order_from_one_thread(told: Told, tmp_path: Path) -> None:
    backend = Remembering()
    with tracker_of(backend, told) as tracker:
        call_everything(tracker, tmp_path, step=7)
    config, log, images, model, summary, finish = backend.calls
    assert config == ("config", {"lr": 0.1})
    assert log == ("log", {"loss": 1.0}, 7)
    assert images[:2] == ("images", "examples") and images[3] == 7
    assert model == ("model", tmp_path / "lamp.onnx", {"epoch": 3})
    assert summary == ("summary", {"best": 0.9})
    assert finish == ("finish", "finished")
    assert backend.threads == {"patchline tracking: The diary"}
    assert told == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (ValueError("x"), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_the_way_out_of_the_context_is_the_status(
    told: Told, error: BaseException | None, status: str
) -> None:
    backend = Remembering()
    try:
        with tracker_of(backend, told):
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt) as raised:
        assert raised is error
    assert backend.calls == [("finish", status)]


def test_pictures_are_copied_and_left_out_where_not_wanted(told: Told) -> None:
    picture = np.zeros((2, 4, 3), np.uint8)
    backend, other = Remembering(), Remembering()
    tracker = tracker_of(backend, told)
    tracker.images("examples", {"one": picture}, step=0)
    picture[:] = 255
    tracker.finish("finished")
    with tracker_of(other, told, upload_pictures=False) as tracker:
        tracker.images("examples", {"one": picture}, step=0)
    assert backend.calls[0][2]["one"].max() == 0
    assert other.calls == [("finish", "finished")]


def test_numbers_are_thinned_and_the_last_ones_kept(told: Told) -> None:
    backend = Remembering()
    with tracker_of(backend, told, log_every=10) as tracker:
        for step in range(25):
            tracker.log({"loss": float(step)}, step=step)
        tracker.log({"metrics/mean/image_auroc": 0.5}, step=1)
    logged = [(values, step) for name, values, step in backend.calls[:-1]]
    assert logged == [
        ({"loss": 0.0}, 0),
        ({"loss": 10.0}, 10),
        ({"loss": 20.0}, 20),
        ({"metrics/mean/image_auroc": 0.5}, 1),
        ({"loss": 24.0}, 24),
    ]


def test_after_the_end_nothing_is_taken(told: Told, tmp_path: Path) -> None:
    backend = Remembering()
    tracker = tracker_of(backend, told)
    tracker.finish("failed")
    call_everything(tracker, tmp_path)
    tracker.finish("finished")
    assert backend.calls == [("finish", "failed")]
    assert told == []


def test_a_backend_that_hangs_neither_holds_up_the_training_nor_its_end(told: Told) -> None:
    backend = Stuck("log")
    tracker = tracker_of(backend, told, finish_timeout_s=0.3)
    begun_s = time.monotonic()
    tracker.log({"loss": 0.0}, step=0)
    assert backend.is_in.wait(10)
    for step in range(1, MOST_WAITING["numbers"] + 50):
        tracker.log({"loss": float(step)}, step=step)
    picture = np.zeros((2, 4, 3), np.uint8)
    for step in range(MOST_WAITING["pictures"] + 3):
        tracker.images("examples", {"one": picture}, step=step)
    tracker.summary({"best": 1.0})
    tracker.finish("finished")
    assert time.monotonic() - begun_s < 20  # a training's thread: never the minute it is stuck for
    numbers, pictures = MOST_WAITING["numbers"] + 50, MOST_WAITING["pictures"] + 3
    assert told == [
        f"The diary was not done in time: dropped {numbers} sets of numbers, {pictures} sets of "
        "pictures, 1 other records. Look into the drawer."
    ]
    backend.let_go.set()


def test_a_thread_that_is_left_behind_is_abandoned(told: Told) -> None:
    abandoned: list[str] = []
    backend = Stuck("finish")
    tracker = tracker_of(
        backend, told, finish_timeout_s=0.1, abandon=lambda: abandoned.append("stuck")
    )
    tracker.finish("finished")
    tracker_of(Remembering(), told, abandon=lambda: abandoned.append("done")).finish("finished")
    assert abandoned == ["stuck"]
    backend.let_go.set()


def test_the_oldest_numbers_are_dropped_and_records_kept(told: Told) -> None:
    backend = Stuck("config")
    tracker = tracker_of(backend, told)
    tracker.config({"lr": 0.1})
    assert backend.is_in.wait(10)
    tracker.summary({"best": 1.0})
    for step in range(MOST_WAITING["numbers"] + 5):
        tracker.log({"loss": float(step)}, step=step)
    backend.let_go.set()
    tracker.finish("finished")
    names = [call[0] for call in backend.calls]
    assert names[:2] == ["config", "summary"]
    assert names[-1] == "finish"
    assert backend.calls[2] == ("log", {"loss": 5.0}, 5)
    assert told == ["The diary did not take all: dropped 5 sets of numbers. Look into the drawer."]


def test_one_that_hangs_while_it_opens_is_left_behind(told: Told) -> None:
    let_go = threading.Event()

    def never() -> Any:
        let_go.wait(60)
        raise RuntimeError("too late to be told")

    tracker = tracker_of(never, told, finish_timeout_s=0.1)
    tracker.log({"loss": 1.0}, step=0)
    tracker.finish("finished")
    let_go.set()
    tracker._worker.wait(10)
    assert told == ["The diary was not done in time: dropped 1 sets of numbers."]


def test_a_long_end_is_told_with_its_limit(
    told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waits: list[float] = []

    def wait(self: Worker, timeout_s: float) -> bool:
        waits.append(timeout_s)
        return False

    monkeypatch.setattr(Worker, "wait", wait)
    backend = Stuck("finish")
    tracker = tracker_of(backend, told, finish_timeout_s=30, seconds_per_mib=1.0, exit_s=12)
    tracker.model(model_file(tmp_path, size=4 << 20), metadata={})
    tracker.finish("finished")
    assert told[0] == "The diary is still writing: waiting for up to 22 s, or until Ctrl-C"
    assert waits[0] == 2.0
    assert 19 < waits[1] <= 22
    backend.let_go.set()


def test_tensors_beside_a_model_take_their_time_too(told: Told, tmp_path: Path) -> None:
    backend = Remembering()
    model = model_file(tmp_path, size=1 << 20)
    (tmp_path / "lamp.onnx.data").write_bytes(bytes(3 << 20))
    tracker = tracker_of(backend, told, finish_timeout_s=30, seconds_per_mib=1.0)
    tracker.model(model, metadata={})
    assert tracker._patience_s == 34
    tracker.finish("finished")


def test_an_interrupt_ends_the_wait_and_what_was_lost_is_told(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Worker, timeout_s: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "wait", interrupted)
    backend = Stuck("log")
    tracker = tracker_of(backend, told)
    tracker.log({"loss": 1.0}, step=0)
    assert backend.is_in.wait(10)
    with pytest.raises(KeyboardInterrupt):
        tracker.finish("finished")
    assert told == [
        "The diary was not done in time: dropped 1 sets of numbers. Look into the drawer."
    ]
    backend.let_go.set()


def log_and_wait(tracker: BackgroundTracker, backend: Remembering, count: int) -> None:
    for step in range(count):
        tracker.log({"loss": 1.0}, step=step)


def test_a_failure_is_told_once_and_the_rest_is_written(told: Told) -> None:
    backend = Raising(OSError("the disk is full\nin detail"), "log", times=2)
    with tracker_of(backend, told) as tracker:
        log_and_wait(tracker, backend, 5)
    assert [call[-1] for call in backend.calls] == [2, 3, 4, "finished"]
    assert told == ["The diary failed at log (OSError: the disk is full); the training goes on"]


@pytest.mark.parametrize("error", [RuntimeError("gone"), SystemExit(3), KeyboardInterrupt()])
def test_after_failures_in_a_row_it_is_given_up(told: Told, error: BaseException) -> None:
    backend = Raising(error, "log", "config")
    tracker = tracker_of(backend, told)
    log_and_wait(tracker, backend, MOST_FAILURES)
    assert tracker._worker.wait(10)
    log_and_wait(tracker, backend, 4)
    tracker.finish("finished")
    assert backend.calls == []
    first, second, last = told
    assert first.startswith(f"The diary failed at log ({type(error).__name__}")
    assert second == (
        f"The diary is given up: {MOST_FAILURES} calls in a row failed; the training goes on "
        "without it"
    )
    assert last.startswith("The diary did not take all: dropped 4 sets of numbers.")


def test_one_that_does_not_open_is_told(told: Told, tmp_path: Path) -> None:
    def refuse() -> Any:
        raise PermissionError("not for you")

    with tracker_of(refuse, told) as tracker:
        assert tracker._worker.wait(10)
        call_everything(tracker, tmp_path)
    assert told == [
        "The diary cannot be used (PermissionError: not for you); the training goes on without it",
        "The diary did not take all: dropped 1 sets of numbers, 1 sets of pictures, "
        "3 other records.",
    ]


def test_an_end_that_fails_is_told_with_what_to_do(told: Told) -> None:
    with tracker_of(Raising(TimeoutError("no answer"), "finish"), told):
        pass
    assert told == ["The diary did not end well (TimeoutError: no answer). Look into the drawer."]


def test_what_cannot_be_taken_is_told_and_stops_nothing(told: Told, tmp_path: Path) -> None:
    backend = Remembering()
    with tracker_of(backend, told) as tracker:
        tracker.log({"loss": "much"}, step=0)  # type: ignore[dict-item]
        tracker.images("examples", 5, step=0)  # type: ignore[arg-type]
        tracker.model(tmp_path / "no.onnx", metadata={})
        tracker.summary({"best": 1.0})
    assert backend.calls == [("summary", {"best": 1.0}), ("finish", "finished")]
    (sentence,) = told
    assert sentence.startswith("The diary failed at numbers (ValueError: could not convert")


def test_a_broken_terminal_stops_nothing(tmp_path: Path) -> None:
    def broken(sentence: str) -> None:
        raise BrokenPipeError

    backend = Raising(OSError("x"), "log")
    with tracker_of(backend, broken) as tracker:
        call_everything(tracker, tmp_path)
    assert backend.calls[-1] == ("finish", "finished")
