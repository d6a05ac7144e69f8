"""Another product while the line runs: asked for by a signal, taken between two frames."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from patchline.runtime.bank import load_bank
from patchline.runtime.bank_switch import BankSwitch
from patchline.runtime.cli.signals import call_on_hangup
from patchline.runtime.contract import Manifest
from patchline.runtime.engine import Prediction
from patchline.runtime.errors import DeviceLostError, ModelError, PatchlineError
from patchline.runtime.graph import MEMORY_BANK
from patchline.runtime.line.camera import Rules
from patchline.runtime.outputs.jsonl import verdict_document
from patchline.runtime.outputs.overlay import annotate
from patchline.runtime.preprocess import Frame
from patchline.runtime.verdict import JudgedFrame

from .fakes import FakeEngine, FakeOutput, gray
from .inspected import inspect_images
from .tiny_model import write_tiny_bank, write_tiny_graph


class SwitchingEngine(FakeEngine):
    """Computes what the tiny graph computes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.load_bank(path)

    def load_bank(self, path: Path) -> None:
        bank = load_bank(path)
        self.manifest, self.value = bank.manifest, float(bank.tensors[MEMORY_BANK].max())

    def infer(self, frames: Frame) -> Prediction:
        found = super().infer(frames)
        anomaly_map = np.asarray(found.anomaly_map - self.value, np.float32)
        return Prediction(anomaly_map.max(axis=(1, 2)), anomaly_map, anomaly_map / 2)


class Line:
    """A bank file, an engine that has loaded it, and a switch that remembers what it tells."""

    def __init__(self, folder: Path) -> None:
        self.bank = folder / "now.bank"
        self.put("lamp", value=50.0, threshold=100.0)
        self.engine = SwitchingEngine(self.bank)
        self.switched: list[Manifest] = []
        self.refused: list[PatchlineError] = []
        self.switch = BankSwitch(self.bank, self.switched.append, self.refused.append)

    def put(self, name: str, value: float, threshold: float) -> None:
        """Copy a product's bank over the one in use."""
        write_tiny_bank(self.bank.with_name(f"{name}.bank"), value, threshold).replace(self.bank)

    def run(self, images: list[Any], output: FakeOutput, **options: Any) -> None:
        apply = self.switch.apply
        inspect_images(
            images,
            output,
            engine=self.engine,
            between_frames=lambda: apply(self.engine),
            **options,
        )


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


class At(FakeOutput):
    """Acts after frame ``index``."""

    def __init__(self, index: int, act: Any) -> None:
        super().__init__()
        self._index, self._act = index, act

    def write(self, judged: JudgedFrame) -> None:
        super().write(judged)
        if judged.verdict.frame == self._index:
            self._act()


class TestSwitch:
    def test_nothing_happens_unless_it_is_asked(self, line: Line) -> None:
        line.put("cap", value=100.0, threshold=30.0)
        line.switch.apply(line.engine)
        assert line.engine.manifest.class_name == "lamp" and line.switched == []

    def test_it_happens_once_per_request(self, line: Line) -> None:
        line.put("cap", value=100.0, threshold=30.0)
        line.switch.request()
        line.switch.request()
        line.switch.apply(line.engine)
        line.switch.apply(line.engine)
        assert [manifest.class_name for manifest in line.switched] == ["cap"]
        assert line.engine.value == 100.0

    def test_a_request_during_the_reading_is_not_lost(self, line: Line) -> None:
        load = line.engine.load_bank

        def load_and_ask(path: Path) -> None:
            load(path)
            line.engine.load_bank = load  # type: ignore[method-assign]
            line.put("cap", value=100.0, threshold=30.0)
            line.switch.request()

        line.engine.load_bank = load_and_ask  # type: ignore[method-assign]
        line.switch.request()
        line.switch.apply(line.engine)
        line.switch.apply(line.engine)
        assert [manifest.class_name for manifest in line.switched] == ["lamp", "cap"]

    def test_a_bank_that_is_refused_leaves_the_one_before(self, line: Line) -> None:
        line.bank.write_bytes(b"no bank")
        line.switch.request()
        line.switch.apply(line.engine)
        (error,) = line.refused
        assert isinstance(error, ModelError) and "now.bank" in str(error)
        assert (line.engine.manifest.class_name, line.engine.value) == ("lamp", 50.0)
        assert line.switched == []

    def test_an_engine_that_is_gone_is_no_refused_bank(self, line: Line) -> None:
        def lose(path: Path) -> None:
            raise DeviceLostError("the GPU fell off the bus")

        line.engine.load_bank = lose  # type: ignore[method-assign]
        line.switch.request()
        with pytest.raises(DeviceLostError, match="fell off"):
            line.switch.apply(line.engine)
        assert line.refused == line.switched == []


class TestInspection:
    def test_score_class_threshold_and_contour_change_together(self, line: Line) -> None:
        def switch() -> None:
            line.put("cap", value=100.0, threshold=30.0)
            line.switch.request()

        output = At(1, switch)
        line.run([gray(140)] * 4, output)
        found = [
            (v.class_name, v.score, v.threshold, v.anomalous, judged.map_value)
            for judged in output.judged
            for v in [judged.verdict]
        ]
        lamp, cap = ("lamp", 90.0, 100.0, False, 100.0), ("cap", 40.0, 30.0, True, 30.0)
        assert found == [lamp, lamp, cap, cap]
        assert [verdict_document(v)["class"] for v in output.verdicts[1:3]] == ["lamp", "cap"]

    def test_the_users_threshold_stays_and_the_contour_moves_with_it(self, line: Line) -> None:
        def switch() -> None:
            write_tiny_bank(line.bank, 100.0, 30.0)
            line.switch.request()

        output = At(0, switch)
        line.run([gray(140)] * 2, output, rules=Rules(threshold=60.0))
        assert [verdict.threshold for verdict in output.verdicts] == [60.0, 60.0]
        assert [judged.map_value for judged in output.judged] == [60.0, 60.0]
        assert output.verdicts[1].class_name == "now"

    def test_the_picture_shows_the_new_products_contour(self, line: Line) -> None:
        def switch() -> None:
            line.put("cap", value=50.0, threshold=30.0)
            line.switch.request()

        output = At(0, switch)
        line.run([gray(110)] * 2, output)
        before, after = (annotate(judged) for judged in output.judged)
        np.testing.assert_array_equal(before[30:40, 30:40], gray(110)[30:40, 30:40])
        assert not np.array_equal(after[30:40, 30:40], before[30:40, 30:40])

    def test_the_switch_is_made_before_the_frame_is_judged(self, line: Line) -> None:
        line.put("cap", value=100.0, threshold=30.0)
        line.switch.request()
        output = FakeOutput()
        line.run([gray(140)], output)
        assert output.verdicts[0].class_name == "cap"

    def test_a_frame_is_decided_by_the_bank_that_judged_it(self, line: Line) -> None:
        """An engine that recovers from the loss of its GPU reads the bank file again."""
        infer = line.engine.infer

        def infer_after_a_loss(frames: Frame) -> Prediction:
            line.engine.load_bank(line.bank)
            return infer(frames)

        line.engine.infer = infer_after_a_loss  # type: ignore[method-assign]
        line.put("cap", value=100.0, threshold=30.0)
        output = FakeOutput()
        line.run([gray(140)], output)
        (verdict,) = output.verdicts
        assert (verdict.class_name, verdict.score, verdict.threshold) == ("cap", 40.0, 30.0)


class TestHangup:
    def test_it_calls_and_gives_the_handler_back(self) -> None:
        before, calls = signal.getsignal(signal.SIGHUP), []
        with call_on_hangup(lambda: calls.append(1)):
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
        assert calls == [1, 1]
        assert signal.getsignal(signal.SIGHUP) is before

    @contextlib.contextmanager
    def camera(self, messages: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        program = [sys.executable, "-m", "patchline.runtime.cli.run_camera", "--headless"]
        with (
            messages.open("w") as stderr,
            subprocess.Popen(
                [*program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=stderr, text=True
            ) as process,
        ):
            yield process

    def test_a_running_camera_switches_and_survives_a_bad_bank(self, tmp_path: Path) -> None:
        graph, bank = write_tiny_graph(tmp_path), tmp_path / "now.bank"
        write_tiny_bank(tmp_path / "lamp.bank", 50.0, 250.0).replace(bank)
        messages = tmp_path / "messages"
        source = "test://?fps=0&width=64&height=64"
        arguments = ("--engine", graph, "--bank", bank, "--source", source)
        seen: list[dict[str, Any]] = []
        with self.camera(messages, *arguments) as process:
            assert process.stdout is not None

            def read_until(done: Any) -> None:
                while not seen or not done(seen[-1]):
                    seen.append(json.loads(process.stdout.readline()))  # type: ignore[union-attr]

            read_until(lambda line: line["frame"] >= 1)
            write_tiny_bank(tmp_path / "cap.bank", 100.0, 30.0).replace(bank)
            process.send_signal(signal.SIGHUP)
            read_until(lambda line: line["class"] == "cap")
            (tmp_path / "bad").write_bytes(b"no bank")
            (tmp_path / "bad").replace(bank)
            process.send_signal(signal.SIGHUP)
            read_until(lambda line: "The bank before goes on" in messages.read_text())
            write_tiny_bank(tmp_path / "cup.bank", 0.0, 20.0).replace(bank)
            process.send_signal(signal.SIGHUP)
            read_until(lambda line: line["class"] == "cup")
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
        assert process.returncode == 0, messages.read_text()
        thresholds = {(line["class"], line["threshold"]) for line in seen}
        assert thresholds == {("lamp", 250.0), ("cap", 30.0), ("cup", 20.0)}
        names = [line["class"] for line in seen]
        assert names == sorted(names, key=["lamp", "cap", "cup"].index)
        text = messages.read_text()
        assert f"bank       {bank}: cap, threshold 30 (95 % quantile" in text
        assert text.count("warning: ") == 1 and "Traceback" not in text

    def test_without_a_bank_it_ends_the_program_as_ever(
        self, tiny_model: Path, tmp_path: Path
    ) -> None:
        arguments = ("--engine", tiny_model, "--source", "test://?fps=0&width=64&height=64")
        with self.camera(tmp_path / "messages", *arguments) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGHUP)
            process.stdout.read()
        assert process.returncode == -signal.SIGHUP

    def test_one_that_comes_while_the_engine_opens_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from patchline.runtime.cli import camera_line, run_camera

        graph, bank = write_tiny_graph(tmp_path), write_tiny_bank(tmp_path / "lamp.bank")
        opens = camera_line.open_camera_engine

        def open_slowly(*arguments: Any, **options: Any) -> Any:
            opened = opens(*arguments, **options)
            os.kill(os.getpid(), signal.SIGHUP)
            return opened

        monkeypatch.setattr(camera_line, "open_camera_engine", open_slowly)
        argv = ["run-camera", "--engine", graph, "--bank", bank, "--headless"]
        argv += ["--source", "test://?frames=2&fps=0"]
        monkeypatch.setattr(sys, "argv", list(map(str, argv)))
        with pytest.raises(SystemExit) as left:
            run_camera.main()
        assert left.value.code == 0
        assert f"bank       {bank}: lamp" in capsys.readouterr().err
