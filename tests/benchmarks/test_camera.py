"""The camera's benchmarks at a tiny size write what the schema asks; no time is asserted."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from patchline.benchmarks.camera_lines import Added, write_pictures, write_video
from patchline.benchmarks.camera_soak import Samples, _Seen
from patchline.runtime.camera.open import open_source
from tests.benchmarks.smoke import smoke
from tests.runtime.fakes import gray, judged_frame


# also runs: camera_viewer
def test_smoke_camera(tmp_path: Path) -> None:
    arguments = ("--image-size", 32, "--frames", 8, "--rounds", 2, "--threads", 1)
    measured = smoke("camera", tmp_path, *arguments)["engine_threads"]
    assert set(measured) == {"1"}
    found = measured["1"]
    assert set(found["throughput"]) == {"video", "pictures"}
    for measured in found["throughput"].values():
        assert measured["loop_over_bare"]["median"] > 0
    assert found["added_latency"]["frames"] >= 1
    assert found["page"]["with_over_without"]["median"] > 0


def test_smoke_camera_soak(tmp_path: Path) -> None:
    arguments = ("--image-size", 32, "--frames", 600, "--every-s", 0.05)
    found = smoke("camera_soak", tmp_path, *arguments)
    assert (found["frames_judged"], found["frames_lost"]) == (600, 0)
    # So short a run may end among samples of a line that has closed its outputs: all of it counts.
    assert max(found["samples"]["open_files"]) > 3
    assert found["open_files_at_the_end"] >= 3
    assert found["resident_bytes_at_the_end"] > 1 << 20
    assert len(found["samples"]["seconds"]) == len(found["samples"]["open_files"])


def test_lost_frames_are_those_whose_numbers_are_missing() -> None:
    seen = _Seen()
    seen.read(iter([json.dumps({"frame": number}) for number in (0, 1, 4, 5, 9)]))
    assert (seen.count, seen.lost) == (5, 5)


def test_the_ends_of_a_run_are_the_second_and_the_last_tenth() -> None:
    samples = Samples(times_s=[float(t) for t in range(101)])
    values = [1000] * 10 + [10] * 11 + [50] * 69 + [30] * 11
    assert samples.ends(values) == (10.0, 30.0)


def test_the_added_time_leaves_the_engines_out(monkeypatch: pytest.MonkeyPatch) -> None:
    added, judged = Added(), judged_frame(gray(1))
    captured = judged.verdict.time.timestamp()
    monkeypatch.setattr("patchline.benchmarks.camera_lines.time.time", lambda: captured + 0.010)
    added.write(judged)
    assert added.added_ms == [pytest.approx(7.0, abs=0.01)]


def test_sources_give_as_many_frames_as_they_should(tmp_path: Path) -> None:
    for source in (write_video(tmp_path / "a.avi", 20), write_pictures(tmp_path / "p", 20)):
        opened = open_source(str(source))
        assert len(list(opened.frames(threading.Event()))) == 20
        opened.close()
