"""docs/fleet.md's pull: new thresholds and banks over HTTPS, whole or not at all, and back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.bank import save_bank
from patchline.runtime.contract import ModelSize, NormalScores
from patchline.runtime.errors import ConfigurationError, ModelError, PatchlineError
from tests.runtime.tiny_model import (
    make_manifest,
    tiny_bank,
    write_manifest,
    write_tiny_bank,
    write_tiny_graph,
    write_tiny_model,
)

from .conftest import EXAMPLES, Examples, Web

NORMAL = NormalScores(
    scores=tuple(float(value) for value in range(100, 140)),
    map_maxima=tuple(float(value) for value in range(100, 140)),
    mean=119.5,
    std=11.5,
)


class PowerCut(BaseException):
    """Nothing of ours catches it, as nothing catches the real one."""


class FakeLine:
    """run-camera as the pull sees it; its frames score by the release that is current.

    ``drifts`` are thresholds whose releases score high, ``broken`` those that do not start.
    """

    def __init__(self, examples: Examples, releases: Any, log: Path) -> None:
        self._examples, self.releases, self._log = examples, releases, log
        self.calls: list[str] = []
        self.drifts: set[float] = set()
        self.broken: set[float] = set()
        self.is_silent = False

    @property
    def threshold(self) -> float:
        manifest = json.loads((self.releases.root / "current" / "lamp.json").read_text())
        return float(manifest["threshold"]["value"])

    def take_up(self, *, only_banks: bool) -> bool:
        self.calls.append("reload" if only_banks else "restart")
        return self.threshold not in self.broken

    def first_frames(self, release: Path, say: Callable[[str], None]) -> str | None:
        assert release == (self.releases.root / "current").resolve()
        first_frames: Any = self._examples.first_frames
        patience_s = 0.05 if self.is_silent else 20.0
        with contextlib.closing(first_frames.Tail(self._log)) as tail:
            found: str | None = first_frames.watch(
                tail, release, say, settle_s=-1.0, patience_s=patience_s, sleep=self._judge_some
            )
        return found

    def _judge_some(self, _: float) -> None:
        if not self.is_silent:
            score = 500.0 if self.threshold in self.drifts else None
            write_frames(self._log, 60, score)


def write_frames(
    log: Path, count: int, score: float | None = None, camera: str = "left", **changes: Any
) -> None:
    """Frames as run-camera logs them; without a score those of good parts."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    with log.open("a") as file:
        for at in range(count):
            found = 100.0 + at % 40 if score is None else score
            line = {"type": "frame", "time": now, "camera": camera, "class": "lamp"}
            line |= {"score": found, "anomalous": False, **changes}
            file.write(json.dumps(line) + "\n")
        file.write('{"type": "state", "time": "x", "camera": "left", "state": "running"}\n')


class Plant:
    """A web folder, a device's folder, and its line."""

    def __init__(self, examples: Examples, web: Web, ca: Path, folder: Path) -> None:
        self.examples, self.web, self._folder = examples, web, folder
        self.releases = examples.model_releases.Releases(folder / "device")  # type: ignore[attr-defined]
        self.source = self.source_of(web.url, ca)
        self.line = FakeLine(examples, self.releases, folder / "log.jsonl")
        self.said: list[str] = []

    def source_of(self, url: str, ca: Path | None, key: tuple[Path, Path] | None = None) -> Any:
        words = (None, None) if key is None else tuple(map(str, key))
        module: Any = self.examples.model_source
        return module.Source(url, ca and str(ca), *words)

    def publish(self, threshold: float, *more: Path) -> str:
        """The tiny model with a threshold; the release's name."""
        models = self._folder / f"models-{threshold}"
        models.mkdir(exist_ok=True)
        limits = make_manifest().threshold.model_copy(update={"value": threshold})
        manifest = make_manifest(threshold=limits, normal_scores=NORMAL)
        files = [write_tiny_model(models, make_manifest(), manifest), models / "lamp.json"]
        return self.publish_files(*files, *more)

    def publish_files(self, *files: Path) -> str:
        module: Any = self.examples.publish_models
        index = module.publish(self.web.folder, list(files))
        indices: Any = self.examples.model_index
        name: str = indices.parse_index(index.read_bytes()).release
        return name

    def pull(self, source: Any = None, prepare: str | None = None) -> bool:
        module: Any = self.examples.pull_models
        found: bool = module.pull(
            self.releases, source or self.source, self.line, prepare, self.said.append
        )
        return found

    def names(self) -> set[str]:
        return {path.name for path in (self.releases.root / "releases").iterdir()}

    def change_index(self, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.web.folder / "index.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))


@pytest.fixture
def plant(
    examples: Examples, web: Web, certificate: tuple[Path, Path], tmp_path: Path
) -> Iterator[Plant]:
    yield Plant(examples, web, certificate[0], tmp_path)


@pytest.fixture
def running(plant: Plant) -> Plant:
    """A device that runs a release and has vouched for it."""
    plant.publish(200.0)
    assert plant.pull()
    plant.line.calls.clear()
    plant.said.clear()
    plant.web.asked.clear()
    return plant


def test_the_first_release_and_then_nothing(plant: Plant) -> None:
    release = plant.publish(200.0)
    assert plant.pull() and plant.releases.current == release
    assert plant.line.calls == ["restart"]
    assert plant.said == [f"switched from nothing to {release}", f"{release} is kept"]
    assert plant.pull() and plant.line.calls == ["restart"]
    assert len(plant.said) == 2


def test_a_new_threshold_fetches_the_manifest_alone(running: Plant) -> None:
    former = running.releases.current
    release = running.publish(150.0)
    assert running.pull()
    assert (running.releases.current, running.line.threshold) == (release, 150.0)
    assert running.line.calls == ["restart"]
    digest = hashlib.sha256((running.releases.root / "current/lamp.json").read_bytes()).hexdigest()
    assert running.web.asked == ["/index.json", f"/files/{digest}"]
    assert running.releases.state.former == former
    assert running.names() == {former, release}
    newest = running.publish(160.0)
    assert running.pull() and running.names() == {release, newest}


def test_a_new_bank_alone_is_a_reload(plant: Plant, tmp_path: Path) -> None:
    graph = write_tiny_graph(tmp_path)
    files = (graph, graph.with_suffix(".json"))
    bank = write_tiny_bank(tmp_path / "cap.bank", 1.0)
    plant.publish(200.0, *files, bank)
    assert plant.pull()
    write_tiny_bank(bank, 2.0)
    plant.publish(200.0, *files, bank)
    assert plant.pull() and plant.line.calls == ["restart", "reload"]
    plant.publish(210.0, *files, bank)
    assert plant.pull() and plant.line.calls == ["restart", "reload", "restart"]


def test_drift_goes_back_and_that_release_is_not_pulled_again(running: Plant) -> None:
    former = running.releases.current
    bad = running.publish(150.0)
    running.line.drifts.add(150.0)
    assert not running.pull()
    assert running.releases.current == former and running.line.calls == ["restart", "restart"]
    assert running.releases.state.refused == [bad] and running.releases.state.watching is None
    assert "camera left: the scores are higher than" in running.said[-1]
    assert f"Back to {former}; {bad} is not pulled again" in running.said[-1]
    assert running.pull() and len(running.line.calls) == 2
    assert running.said[-1] == f"{bad} was refused here before; a newer one is waited for"
    newer = running.publish(170.0)
    assert running.pull() and running.releases.current == newer
    assert running.names() == {former, newer}


def test_a_threshold_that_lets_nothing_pass_goes_back(running: Plant) -> None:
    former = running.releases.current
    running.publish(10.0)
    write = running.line._judge_some

    def all_anomalous(seconds: float) -> None:
        write_frames(running.line._log, 100, anomalous=True)

    running.line._judge_some = all_anomalous  # type: ignore[method-assign]
    assert not running.pull() and running.releases.current == former
    assert "100 of the first 100 frames are anomalous" in running.said[-1]
    running.line._judge_some = write  # type: ignore[method-assign]


def test_a_release_that_does_not_start_goes_back_at_once(running: Plant) -> None:
    former = running.releases.current
    running.publish(150.0)
    running.line.broken.add(150.0)
    assert not running.pull() and running.releases.current == former
    assert "the line does not start with it" in running.said[-1]


def test_the_first_release_has_nothing_to_go_back_to(plant: Plant) -> None:
    release = plant.publish(150.0)
    plant.line.drifts.add(150.0)
    assert not plant.pull()
    assert plant.releases.current == release and "it stays" in plant.said[-1]


def test_a_silent_line_is_watched_again_without_a_restart(running: Plant) -> None:
    former, release = running.releases.current, running.publish(150.0)
    running.line.is_silent = True
    for _ in range(2):
        with pytest.raises(TimeoutError, match="100 of each camera are needed"):
            running.pull()
    assert running.line.calls == ["restart"]
    running.line.is_silent = False
    running.line.drifts.add(150.0)
    away = running.source_of("https://127.0.0.1:9", None)
    assert not running.pull(away), "it is watched while the server is away"
    assert running.releases.current == former and running.releases.state.refused == [release]


def test_a_newer_release_replaces_one_that_is_still_watched(running: Plant) -> None:
    former = running.releases.current
    running.publish(150.0)
    running.line.is_silent = True
    with pytest.raises(TimeoutError):
        running.pull()
    running.line.is_silent = False
    running.line.drifts.add(160.0)
    running.publish(160.0)
    assert not running.pull()
    assert running.releases.current == former, "nobody has vouched for the one between"


class TestWhatComesDamaged:
    """The former release stays, to the byte, and nothing is restarted."""

    @pytest.fixture(autouse=True)
    def nothing_is_switched(self, running: Plant) -> Iterator[None]:
        before = running.releases.current
        yield
        assert running.releases.current == before and running.line.calls == []
        assert running.line.threshold == 200.0
        assert running.releases.state.watching is None
        running.publish(180.0)  # and the next whole one is taken
        assert running.pull() and running.line.threshold == 180.0
        running.line.calls.clear()
        running.releases.switch(before)

    def stored(self, running: Plant) -> Path:
        """The published manifest."""
        running.publish(150.0)
        (entry,) = (
            one
            for one in json.loads((running.web.folder / "index.json").read_text())["files"]
            if one["name"] == "lamp.json"
        )
        return running.web.folder / "files" / str(entry["sha256"])

    @pytest.mark.parametrize("kept", [0, 100, -1])
    def test_a_truncated_file(self, running: Plant, kept: int) -> None:
        stored = self.stored(running)
        stored.write_bytes(stored.read_bytes()[:kept])
        with pytest.raises(ModelError, match=r"lamp.json came with \d+ bytes"):
            running.pull()

    def test_a_file_that_is_longer_or_another(self, running: Plant) -> None:
        stored = self.stored(running)
        whole = stored.read_bytes()
        for content in (whole + b" " * 5_000_000, whole[:-2] + b" \n"):
            stored.write_bytes(content)
            with pytest.raises(ModelError, match="Nothing was switched"):
                running.pull()

    def test_a_file_that_is_not_there(self, running: Plant) -> None:
        self.stored(running).unlink()
        with pytest.raises(PatchlineError, match="404"):
            running.pull()

    def test_files_of_two_exports(self, running: Plant, tmp_path: Path) -> None:
        stored = self.stored(running)
        manifest = json.loads(stored.read_text())
        manifest["onnx"]["sha256"] = "5" * 64
        content = json.dumps(manifest).encode()
        digest = hashlib.sha256(content).hexdigest()
        stored.with_name(digest).write_bytes(content)

        def change(document: dict[str, Any]) -> None:
            (entry,) = (one for one in document["files"] if one["name"] == "lamp.json")
            entry.update(sha256=digest, bytes=len(content))

        running.change_index(change)
        with pytest.raises(ModelError, match="not from the same export"):
            running.pull()

    def test_a_model_without_its_manifest(self, running: Plant) -> None:
        self.stored(running)
        running.change_index(lambda d: d["files"].pop(0))  # the model remains
        with pytest.raises(ModelError, match=r"without lamp\.json"):
            running.pull()

    @pytest.mark.parametrize(
        "name", ["../lamp.json", "/etc/passwd", "a/b", "..", ".hidden", "", "a\\b", "a\0", 7, None]
    )
    def test_a_name_that_leads_elsewhere(self, running: Plant, name: object) -> None:
        running.change_index(lambda d: d["files"][0].update(name=name))
        with pytest.raises(ModelError, match="the index cannot be read"):
            running.pull()
        assert not (running.releases.root.parent / "lamp.json").exists()

    @pytest.mark.parametrize(
        "change",
        [
            {"patchline_models": 2}, {"files": []}, {"files": 3}, {"files": [{"name": "a"}]},
            {"files": [{"name": "a", "sha256": "../../x", "bytes": 1}]},
            {"files": [{"name": "a", "sha256": "5" * 64, "bytes": -1}]},
            {"files": [{"name": "a", "sha256": "5" * 64, "bytes": True}]},
            {"files": [{"name": n, "sha256": "5" * 64, "bytes": 1} for n in "aA"]},
        ],
    )  # fmt: skip
    def test_an_index_that_is_none(self, running: Plant, change: dict[str, Any]) -> None:
        running.change_index(lambda d: d.update(change))
        with pytest.raises(ModelError, match="the index cannot be read"):
            running.pull()

    def test_half_an_index(self, running: Plant) -> None:
        index = running.web.folder / "index.json"
        index.write_bytes(index.read_bytes()[:60])
        with pytest.raises(ModelError, match="the index cannot be read"):
            running.pull()

    def test_a_server_that_is_away(self, running: Plant) -> None:
        with pytest.raises(PatchlineError, match=r"cannot be had.*What runs goes on"):
            running.pull(running.source_of("https://127.0.0.1:9", None))

    def test_an_authority_that_is_not_known(self, running: Plant) -> None:
        with pytest.raises(PatchlineError, match="CERTIFICATE_VERIFY_FAILED"):
            running.pull(running.source_of(running.web.url, None))

    def test_a_redirect_is_not_followed(
        self, running: Plant, certificate: tuple[Path, Path]
    ) -> None:
        with pytest.raises(PatchlineError, match="302"):
            running.pull(running.source_of(f"{running.web.url}/moved", certificate[0]))

    def test_a_preparation_that_fails(self, running: Plant) -> None:
        running.publish(150.0)
        with pytest.raises(OSError, match="no-such-program"):
            running.pull(prepare="no-such-program lamp.onnx")


def test_no_plain_http(plant: Plant) -> None:
    with pytest.raises(ConfigurationError, match="no https://"):
        plant.source_of("http://127.0.0.1/models", None)


def test_a_client_certificate_opens_a_server_that_demands_one(
    plant: Plant, certificate: tuple[Path, Path]
) -> None:
    plant.publish(200.0)
    guarded = Web(plant.web.folder, certificate, demands_client=True)
    try:
        with pytest.raises(PatchlineError, match="cannot be had"):
            plant.pull(plant.source_of(guarded.url, certificate[0]))
        assert plant.pull(plant.source_of(guarded.url, certificate[0], certificate))
    finally:
        guarded.close()


def test_a_release_is_prepared_before_it_is_switched_to_and_plans_go_along(
    running: Plant, tmp_path: Path
) -> None:
    script = tmp_path / "build.py"
    script.write_text(
        "import pathlib; p = pathlib.Path('lamp.trt')\n"
        "p.write_text(p.read_text() + '+' if p.exists() else 'plan')\n"
    )
    for threshold, expected in ((150.0, "plan"), (160.0, "plan+")):
        running.publish(threshold)
        assert running.pull(prepare=f"{sys.executable} {script}")
        assert (running.releases.root / "current/lamp.trt").read_text() == expected


def content_of(release: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in release.iterdir()}


@pytest.mark.parametrize("drifts", [False, True])
def test_a_power_cut_at_any_step_leaves_a_whole_release(
    running: Plant, monkeypatch: pytest.MonkeyPatch, drifts: bool, tmp_path: Path
) -> None:
    """Before each step in turn; the next run then ends as one without a cut."""
    module: Any = running.examples.model_releases
    root, kept = running.releases.root, tmp_path / "kept"
    shutil.copytree(root, kept, symlinks=True)
    former, release = running.releases.current, running.publish(150.0)
    whole = [content_of(root / "releases" / former)]
    assert running.pull()
    whole.append(content_of(root / "releases" / release))
    if drifts:
        running.line.drifts.add(150.0)
    left = 0

    def cutting(step: Any) -> Any:
        def cut(*words: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise PowerCut
            return step(*words, **named)

        return cut

    for owner, name in (
        (module, "to_disk"), (module.shutil, "rmtree"), (Path, "rename"), (Path, "replace"),
        (Path, "symlink_to"), (running.line, "take_up"), (running.line, "first_frames"),
        (running.source, "get"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, cutting(getattr(owner, name)))
    cuts = 0
    while True:
        left = 10**6
        shutil.rmtree(root)
        shutil.copytree(kept, root, symlinks=True)
        left = cuts
        try:
            running.pull()
        except PowerCut:
            cuts += 1
        else:
            break
        assert content_of(root / "current") in whole
        left = 10**6
        running.line.calls.clear()
        for _ in range(2):
            running.pull()
        state = running.releases.state
        assert running.releases.current == (former if drifts else release)
        assert state.watching is None and state.refused == ([release] if drifts else [])
    assert cuts > 20


class TestWatch:
    def watch(
        self, examples: Examples, folder: Path, steps: list[Callable[[], Any]], **options: Any
    ) -> Any:
        module: Any = examples.first_frames
        log = folder / "log.jsonl"
        release = folder / "release"
        release.mkdir(exist_ok=True)
        model = write_tiny_model(release)
        write_manifest(model, make_manifest(normal_scores=NORMAL))
        said: list[str] = []

        def sleep(_: float) -> None:
            if steps:
                steps.pop(0)()

        with contextlib.closing(module.Tail(log)) as tail:
            return module.watch(
                tail, release, said.append, settle_s=-1.0, patience_s=0.3, sleep=sleep, **options
            )

    def test_every_camera_is_judged(self, examples: Examples, tmp_path: Path) -> None:
        log = tmp_path / "log.jsonl"
        steps: list[Callable[[], Any]] = [
            lambda: write_frames(log, 100, None, "left"),
            lambda: write_frames(log, 100, 500.0, "right"),
        ]
        both = [lambda: [step() for step in steps]]
        assert self.watch(examples, tmp_path, list(both)).startswith("camera right: ")

    def test_a_camera_that_opens_late_is_waited_for(
        self, examples: Examples, tmp_path: Path
    ) -> None:
        """It gave frames before the switch; the other one gives its hundred first."""
        log = tmp_path / "log.jsonl"
        write_frames(log, 1, None, "right")
        steps: list[Callable[[], Any]] = [
            lambda: write_frames(log, 100, None, "left"),
            lambda: write_frames(log, 100, 500.0, "right"),
        ]
        assert self.watch(examples, tmp_path, list(steps)).startswith("camera right: ")
        with pytest.raises(TimeoutError, match=r"needed: right gave 0\. .*--cameras"):
            self.watch(examples, tmp_path, steps[:1])
        assert self.watch(examples, tmp_path, steps[:1], cameras=["left"]) is None

    def test_a_camera_is_named_by_the_log_that_was_shifted_or_by_the_user(
        self, examples: Examples, tmp_path: Path
    ) -> None:
        log = tmp_path / "log.jsonl"
        write_frames(log, 1, None, "right")
        log.rename(tmp_path / "log.jsonl.1")
        left: list[Callable[[], Any]] = [lambda: write_frames(log, 100)]
        with pytest.raises(TimeoutError, match="needed: right gave 0"):
            self.watch(examples, tmp_path, list(left))
        with pytest.raises(TimeoutError, match="needed: top gave 0"):
            self.watch(examples, tmp_path, left, cameras=["left", "top"])

    def test_a_camera_of_long_ago_or_of_another_product_is_not_waited_for(
        self, examples: Examples, tmp_path: Path
    ) -> None:
        log = tmp_path / "log.jsonl"
        write_frames(log, 1, None, "old", time="2024-05-17T12:00:00.000+02:00")
        write_frames(log, 1, None, "other", **{"class": "cap"})
        with log.open("a") as file:
            file.write('{"type": "fra\n')
        assert self.watch(examples, tmp_path, [lambda: write_frames(log, 100)]) is None

    def test_a_log_that_is_rotated_in_between(self, examples: Examples, tmp_path: Path) -> None:
        log = tmp_path / "log.jsonl"
        write_frames(log, 300, 500.0)  # before the switch
        steps: list[Callable[[], Any]] = [
            lambda: write_frames(log, 60),
            lambda: (write_frames(log, 20), log.rename(tmp_path / "log.jsonl.1")),
            lambda: write_frames(log, 20),
        ]
        assert self.watch(examples, tmp_path, steps) is None
        assert steps == []

    def test_a_line_that_is_written_in_two(self, examples: Examples, tmp_path: Path) -> None:
        log = tmp_path / "log.jsonl"
        module: Any = examples.first_frames
        log.touch()
        with contextlib.closing(module.Tail(log)) as tail, log.open("a") as file:
            file.write('{"type": "fr')
            file.flush()
            assert list(tail.lines()) == []
            file.write('ame"}\n')
            file.flush()
            assert list(tail.lines()) == [{"type": "frame"}]

    def test_frames_of_another_product_do_not_count(
        self, examples: Examples, tmp_path: Path
    ) -> None:
        log = tmp_path / "log.jsonl"
        steps = [lambda: write_frames(log, 200, 500.0, **{"class": "cap"})]
        with pytest.raises(TimeoutError, match="0 frames of lamp"):
            self.watch(examples, tmp_path, list(steps))

    def test_frames_from_before_the_switch_do_not_count(
        self, examples: Examples, tmp_path: Path
    ) -> None:
        log = tmp_path / "log.jsonl"
        old = "2024-05-17T12:00:00.000+02:00"
        with pytest.raises(TimeoutError, match="0 frames of lamp"):
            self.watch(examples, tmp_path, [lambda: write_frames(log, 200, 500.0, time=old)])

    def test_few_normal_scores_are_told_and_anomalies_still_count(
        self, examples: Examples, tmp_path: Path
    ) -> None:
        module: Any = examples.first_frames
        frames = [{"score": 500.0, "anomalous": False}] * 100
        limits = {"watches_lower": True, "largest_share": 0.5}
        assert module.problem_of(frames, [1.0] * 19, **limits) is None
        assert module.problem_of(frames, [1.0] * 20, **limits) is not None
        low = [{"score": 0.0, "anomalous": False}] * 100
        assert module.problem_of(low, [1.0] * 20, **limits) is not None
        assert module.problem_of(low, [1.0] * 20, watches_lower=False, largest_share=0.5) is None

    def test_normal_scores_come_from_manifests_and_banks(
        self, examples: Examples, tmp_path: Path
    ) -> None:
        write_tiny_graph(tmp_path)
        write_tiny_bank(tmp_path / "cap.bank")
        write_tiny_model(tmp_path)
        (tmp_path / "lamp.trt.json").write_text('{"tensorrt": "10.3"}')
        module: Any = examples.first_frames
        expected = tiny_bank().manifest.normal_scores.scores
        assert module.normal_scores(tmp_path) == {"cap": expected, "lamp": expected}


def test_the_command_from_publishing_to_going_back(
    plant: Plant, certificate: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    log, marker, stop = tmp_path / "line.jsonl", tmp_path / "restarted", threading.Event()
    high = threading.Event()
    words = [
        "pull_models.py", plant.web.url, "--root", str(tmp_path / "other device"),
        "--log", str(log), "--ca", str(certificate[0]), "--settle", "0", "--patience", "30",
        "--restart", f"{sys.executable} -c \"open('{marker}', 'a').write('.')\"",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)

    def work() -> None:
        while not stop.wait(0.05):
            write_frames(log, 40, 500.0 if high.is_set() else None)

    camera = threading.Thread(target=work)
    camera.start()
    module: Any = plant.examples.pull_models
    try:
        first = plant.publish(200.0)
        assert module.main() == 0
        high.set()
        second = plant.publish(150.0)
        assert module.main() == 1
    finally:
        stop.set()
        camera.join(20)
    assert f"Back to {first}; {second} is not pulled again" in capsys.readouterr().out
    assert marker.read_text() == "..."
    monkeypatch.setattr(sys, "argv", [*words, "--ca", str(log)])
    assert module.main() == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_publishing_replaces_the_index_last_and_keeps_old_files(plant: Plant) -> None:
    plant.publish(200.0)
    before = {path.name for path in (plant.web.folder / "files").iterdir()}
    plant.publish(150.0)
    after = {path.name for path in (plant.web.folder / "files").iterdir()}
    assert before < after and len(after) == 3
    module: Any = plant.examples.publish_models
    with pytest.raises(ModelError, match=r"without lamp\.json"):
        module.publish(plant.web.folder, [plant.web.folder.parent / "models-150.0/lamp.onnx"])


class TestPublishing:
    """What no device would take never reaches the index, and a torn file is mended."""

    @pytest.mark.parametrize("name", ["Kappe ä", "cap 2", ".cap", "c" * 122])
    def test_a_name_that_every_device_refuses(
        self, plant: Plant, tmp_path: Path, name: str
    ) -> None:
        plant.publish(200.0)
        before = (plant.web.folder / "index.json").read_bytes()
        other = tmp_path / f"{name}.json"
        other.write_text("{}")
        with pytest.raises(ModelError, match=r"no device takes these files.*no plain file name"):
            plant.publish_files(other)
        assert (plant.web.folder / "index.json").read_bytes() == before

    def test_two_files_of_one_name(self, plant: Plant, tmp_path: Path) -> None:
        paths = [tmp_path / "a.json", tmp_path / "other" / "A.json"]
        paths[1].parent.mkdir()
        for path in paths:
            path.write_text("{}")
        with pytest.raises(ModelError, match="two have one name"):
            plant.publish_files(*paths)

    def test_a_file_that_a_power_cut_left_in_part_is_copied_again(self, plant: Plant) -> None:
        plant.publish(200.0)
        stored = sorted((plant.web.folder / "files").iterdir())
        whole = [path.read_bytes() for path in stored]
        for path in stored:
            path.write_bytes(path.read_bytes()[:50])
        plant.publish(200.0)
        assert [path.read_bytes() for path in stored] == whole
        assert plant.pull()

    def test_all_is_on_the_disk_before_the_index_names_it(
        self, plant: Plant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module: Any = plant.examples.publish_models
        order: list[str] = []
        replace = Path.replace
        monkeypatch.setattr(module, "to_disk", lambda path: order.append(path.name))
        monkeypatch.setattr(
            Path, "replace", lambda self, to: order.append(f"> {to.name}") or replace(self, to)
        )
        plant.publish(200.0)
        digests = sorted(path.name for path in (plant.web.folder / "files").iterdir())
        stored = [name for name in order if name.strip("> .").removesuffix(".new") in digests]
        assert [name[0] for name in stored] == [".", ">", ".", ">"]
        assert order[4:] == ["files", ".index.json.new", "> index.json", plant.web.folder.name]

    def test_a_mistake_is_a_sentence(
        self, plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        module: Any = plant.examples.publish_models
        words = ["publish_models.py", str(plant.web.folder)]
        for more, status, said in (
            ([], 2, "usage: "),
            ([str(plant.web.folder / "away.json")], 1, "error: "),
        ):
            monkeypatch.setattr(sys, "argv", [*words, *more])
            assert module.main() == status
            found = capsys.readouterr().err
            assert found.startswith(said) and found.count("\n") == 1


class TestBanksAndGraphs:
    def test_a_release_with_two_graphs_and_their_banks(self, plant: Plant, tmp_path: Path) -> None:
        files = []
        for name, rows in (("small", 32), ("large", 64)):
            size = ModelSize(height=rows, width=rows)
            graph = write_tiny_graph(tmp_path, name, model_size=size)
            bank = tiny_bank(f"cap-{name}")
            manifest = bank.manifest.model_copy(update={"model_size": size})
            save_bank(replace(bank, manifest=manifest), tmp_path / f"cap-{name}.bank")
            files += [graph, graph.with_suffix(".json"), tmp_path / f"cap-{name}.bank"]
        release = plant.publish(200.0, *files)
        assert plant.pull() and plant.releases.current == release
        others = [path for path in files if path.stem not in ("small", "cap-large")]
        with pytest.raises(ModelError, match=r"cap-small\.bank is not for .*large\.onnx"):
            plant.publish(200.0, *others)

    def test_a_bank_without_its_graph(self, running: Plant, tmp_path: Path) -> None:
        bank = write_tiny_bank(tmp_path / "cap.bank")
        with pytest.raises(ModelError, match=r"cap\.bank comes without its graph"):
            running.publish(200.0, bank)


class TestBeforeTheSwitch:
    """What cannot be is a sentence before anything is changed."""

    @pytest.fixture
    def pull(
        self, plant: Plant, tmp_path: Path, certificate: tuple[Path, Path],
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    ) -> Callable[..., tuple[int, str]]:  # fmt: skip
        module: Any = plant.examples.pull_models

        def call(*more: str) -> tuple[int, str]:
            words = [
                "pull_models.py", plant.web.url, "--root", str(tmp_path / "device"),
                "--log", str(tmp_path / "log.jsonl"), "--ca", str(certificate[0]),
                "--restart", "no-such-program", *more,
            ]  # fmt: skip
            monkeypatch.setattr(sys, "argv", words)
            return module.main(), capsys.readouterr().err

        plant.publish(200.0)
        return call

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--frames", "50"), "is 50 frames, expected 100 to 100000"),
            (("--restart", "systemctl 'restart"), "is no command: No closing quotation"),
            (("--reload", " "), "is no command: it is empty"),
        ],
    )
    def test_options(
        self, plant: Plant, pull: Callable[..., tuple[int, str]], words: tuple[str, ...], said: str
    ) -> None:
        status, found = pull(*words)
        assert status == 1 and found.startswith("error: ") and said in found
        assert plant.releases.current is None and plant.web.asked == []

    def test_another_pull(self, plant: Plant, pull: Callable[..., tuple[int, str]]) -> None:
        module: Any = plant.examples.pull_models
        with module._only_pull(plant.releases.root):
            status, found = pull()
        assert status == 1 and "error: another pull runs in" in found

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", '{"other": 1}', '{"refused": "a"}', '{"refused": [1]}', '{"former": 7}',
         '{"is_running": "no"}', "\ud800"],
    )  # fmt: skip
    def test_a_damaged_state(
        self, plant: Plant, pull: Callable[..., tuple[int, str]], text: str
    ) -> None:
        path = plant.releases.root / "state.json"
        path.write_bytes(text.encode(errors="surrogatepass"))
        status, found = pull()
        assert status == 1 and found.startswith(f"error: {path} cannot be read: ")
        assert found.count("\n") == 1 and plant.releases.current is None


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_examples_stay_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 200
