"""``build-engine`` as a program: what it prints, writes, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from patchline.runtime.byte_size import parse_bytes
from patchline.runtime.cli import build_engine as module
from patchline.runtime.contract import load_manifest, manifest_path
from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.cuda import gpu as cuda
from patchline.runtime.engine.plans.build_lock import build_lock
from patchline.runtime.engine.plans.manifest_copy import needs_manifest, put_manifest
from patchline.runtime.engine.plans.record import BuildOptions, Device, load_record, record_path
from patchline.runtime.errors import ConfigurationError, EngineError, ManifestError
from patchline.runtime.progress import Advance, ConsoleSteps

from .tiny_model import make_manifest, write_manifest, write_tiny_graph

pytest.importorskip("tensorrt_rtx_bindings")

PROGRAM = [sys.executable, "-m", "patchline.runtime.cli.build_engine"]
NO_GPU = "The plan is built for no GPU"


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def sentence(finished: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in finished.stderr
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    return line


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


class TestProgram:
    """The real one, with TensorRT for RTX, which needs no GPU."""

    def test_a_plan_is_built_once(self, tiny_model: Path) -> None:
        plan = tiny_model.with_suffix(".trt")
        first = run(tiny_model, "--batch", "1:2:4", "--workspace", "64M", "--tf32")
        assert first.returncode == 0, first.stderr
        assert files(plan.parent) == ["lamp.json", "lamp.onnx", "lamp.trt", "lamp.trt.json"]
        assert load_record(plan).options == BuildOptions(
            batch=(1, 2, 4), workspace_bytes=64 << 20, tf32=True
        )
        for words in ("1:2:4", "64 MiB", "rounded to TF32", "tensorrt-rtx 1.", "lamp.trt"):
            assert words in first.stdout
        assert "does not exist. It is built now" in first.stderr
        content = plan.read_bytes()
        again = run(tiny_model, "--batch", "1:2:4", "--workspace", "64M", "--tf32")
        assert f"{plan} is up to date" in again.stdout
        assert "is built now" not in again.stderr
        assert plan.read_bytes() == content

    def test_a_graph_is_built_for_rows_and_reported_as_json(self, tmp_path: Path) -> None:
        finished = run(write_tiny_graph(tmp_path), "--bank-rows", "32:64:96", "--json")
        assert finished.returncode == 0, finished.stderr
        (line,) = finished.stdout.splitlines()
        result = json.loads(line)
        plan = tmp_path / "graph.trt"
        assert result["plan"] == str(plan) and result["built"] is True
        assert result["size_bytes"] == plan.stat().st_size and result["seconds"] >= 0
        assert result["options"]["bank_rows"] == [32, 64, 96]
        assert result["plan_sha256"] == load_record(plan).plan_sha256

    def test_two_at_once_build_one_plan(self, tiny_model: Path) -> None:
        programs = [
            subprocess.Popen(
                [*PROGRAM, tiny_model, "--json"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for _ in range(2)
        ]
        results = [json.loads(program.communicate(timeout=120)[0]) for program in programs]
        assert [program.returncode for program in programs] == [0, 0]
        assert sorted(result["built"] for result in results) == [False, True]
        assert results[0]["plan_sha256"] == results[1]["plan_sha256"]

    def test_an_interrupt_while_it_waits_exits_with_130(self, tiny_model: Path) -> None:
        plan = tiny_model.with_suffix(".trt")
        with (
            build_lock(plan, pytest.fail),
            subprocess.Popen([*PROGRAM, tiny_model], stderr=subprocess.PIPE, text=True) as program,
        ):
            assert program.stderr is not None
            told = next(line for line in program.stderr if "waiting for it" in line)
            program.send_signal(signal.SIGINT)
            rest = program.stderr.read()
        assert program.returncode == 130
        assert str(plan) in told and rest == "error: interrupted\n"
        assert not plan.exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--batch", "4"), "--batch is '4', expected smallest:usual:largest"),
            (("--batch", "0:1:2"), "--batch is '0:1:2'"),
            (("--batch", "4:1:2"), "the batch profile is 4:1:2"),
            (("--bank-rows", "32:32:32"), "holds its own memory bank"),
            (("--bank-rows", "many"), "--bank-rows is 'many', expected smallest:usual:largest"),
            (("--workspace", "lots"), "--workspace is 'lots', expected for example 4G"),
            (("--workspace", "1K"), "--workspace is 1K, expected 1M or more"),
            (("--out", "lamp.engine"), "--out is lamp.engine, expected a file ending in .trt"),
        ],
    )
    def test_options_that_cannot_be_are_one_sentence(
        self, tiny_model: Path, arguments: tuple[str, ...], words: str
    ) -> None:
        finished = run(tiny_model, *arguments)
        assert (finished.returncode, finished.stdout) == (1, "")
        assert words in sentence(finished)
        assert files(tiny_model.parent) == ["lamp.json", "lamp.onnx"]

    @pytest.mark.parametrize(
        "arguments", [("--flavour", "tensorrt-xl"), ("--device", "-1"), ("--speed",)]
    )
    def test_wrong_usage_exits_with_2(self, tiny_model: Path, arguments: tuple[str, ...]) -> None:
        finished = run(tiny_model, *arguments)
        assert (finished.returncode, finished.stdout) == (2, "")
        assert arguments[0] in finished.stderr

    def test_another_file_than_a_model(self, tiny_model: Path) -> None:
        finished = run(tiny_model.with_suffix(".trt"))
        assert finished.returncode == 1 and "is no .onnx file" in sentence(finished)

    def test_a_missing_model(self, tiny_model: Path) -> None:
        tiny_model.unlink()
        finished = run(tiny_model)
        assert finished.returncode == 1 and "lamp.onnx does not exist" in sentence(finished)
        assert files(tiny_model.parent) == ["lamp.json"]


def call(model: Path, **options: Any) -> None:
    """The command in this process, as its entry point calls it."""
    defaults: dict[str, Any] = {"out": None, "batch": "1:1:8", "bank_rows": None, "device": 0}
    rest = {"workspace": None, "tf32": False, "flavour": None, "force": False, "as_json": True}
    module.build_engine(model, **(defaults | rest | options))


class FakeGpu:
    def __init__(self) -> None:
        self.device = Device(gpu="Orin", compute_capability="8.7")
        self.opened: list[int] = []
        self.closings = 0

    def open(self, index: int) -> FakeGpu:
        self.opened.append(index)
        return self

    def close(self) -> None:
        self.closings += 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    found = FakeGpu()
    monkeypatch.setattr(cuda, "open_gpu", found.open)
    return found


class TestGpu:
    def test_the_plan_is_for_the_gpu_asked_for_which_is_given_back(
        self, tiny_model: Path, gpu: FakeGpu
    ) -> None:
        call(tiny_model, device=3)
        assert load_record(tiny_model.with_suffix(".trt")).device == gpu.device
        assert (gpu.opened, gpu.closings) == ([3], 1)

    def test_it_is_given_back_after_an_error(self, tiny_model: Path, gpu: FakeGpu) -> None:
        tiny_model.write_bytes(b"")
        with pytest.raises(Exception, match="is not the file"):
            call(tiny_model)
        assert gpu.closings == 1

    def test_without_one_tensorrt_for_rtx_warns(
        self,
        tiny_model: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def refuse(index: int) -> None:
            raise EngineError("there is no driver")

        monkeypatch.setattr(cuda, "open_gpu", refuse)
        call(tiny_model)
        assert load_record(tiny_model.with_suffix(".trt")).device is None
        assert f"warning: there is no driver. {NO_GPU}" in capsys.readouterr().err

    def test_without_one_tensorrt_refuses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(index: int) -> None:
            raise EngineError("there is no driver")

        monkeypatch.setattr(cuda, "open_gpu", refuse)
        with pytest.raises(EngineError, match="there is no driver"):
            module._open_gpu(Flavour("tensorrt", SimpleNamespace(), "10.3.0"), 0)


class TestBuild:
    def result(self, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    def test_force_builds_a_plan_that_fits(
        self, tiny_model: Path, gpu: FakeGpu, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for force, built in ((False, True), (False, False), (True, True)):
            call(tiny_model, force=force)
            assert self.result(capsys)["built"] is built

    def test_other_options_build_again_and_say_why(
        self, tiny_model: Path, gpu: FakeGpu, capsys: pytest.CaptureFixture[str]
    ) -> None:
        call(tiny_model, batch="1:1:4")
        capsys.readouterr()
        call(tiny_model)
        captured = capsys.readouterr()
        assert json.loads(captured.out)["options"]["batch"] == [1, 1, 8]
        assert "was built with batch (1, 1, 4), asked is (1, 1, 8)" in captured.err

    def test_ctrl_c_in_the_build_exits_with_130_and_leaves_nothing(
        self,
        tiny_model: Path,
        gpu: FakeGpu,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        @contextmanager
        def step(self: ConsoleSteps, name: str, total: int) -> Iterator[Advance]:
            yield lambda done: os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(ConsoleSteps, "step", step)
        out = tiny_model.parent / "out"
        out.mkdir()
        monkeypatch.setattr(sys, "argv", ["build-engine", str(tiny_model), "--out", str(out)])
        with pytest.raises(SystemExit) as left:
            module.main()
        assert left.value.code == 130
        assert "error: interrupted" in capsys.readouterr().err
        assert files(out) == [] and gpu.closings == 1


class TestPlanElsewhere:
    """``--out`` in another folder, or under another name: the manifest must lie there, too."""

    @pytest.mark.parametrize("out", ["device", "device/lamp.trt", "device/cap.trt", "model/b.trt"])
    def test_the_manifest_is_written_beside_the_plan(
        self, tiny_model: Path, tmp_path: Path, gpu: FakeGpu, out: str
    ) -> None:
        (tmp_path / "device").mkdir()
        call(tiny_model, out=tmp_path / out)
        plan = tmp_path / out
        plan = plan / "lamp.trt" if plan.is_dir() else plan
        assert plan.is_file() and record_path(plan).is_file()
        assert manifest_path(plan).read_bytes() == manifest_path(tiny_model).read_bytes()

    def test_it_is_said(
        self, tiny_model: Path, tmp_path: Path, gpu: FakeGpu, capsys: pytest.CaptureFixture[str]
    ) -> None:
        call(tiny_model, out=tmp_path / "new/lamp.trt")
        there, own = tmp_path / "new/lamp.json", manifest_path(tiny_model)
        assert f"{there} is a copy of {own}" in capsys.readouterr().err

    def test_a_threshold_that_was_calibrated_there_stays(
        self, tiny_model: Path, tmp_path: Path
    ) -> None:
        plan = tmp_path / "lamp.trt"
        put_manifest(tiny_model, plan)
        manifest = load_manifest(manifest_path(plan))
        limit = manifest.threshold.model_copy(update={"value": 7.0})
        manifest.model_copy(update={"threshold": limit}).save(manifest_path(plan))
        assert not needs_manifest(tiny_model, plan)

    def test_one_of_an_earlier_export_is_replaced(self, tiny_model: Path, tmp_path: Path) -> None:
        plan = tmp_path / "lamp.trt"
        put_manifest(tiny_model, plan)
        tiny_model.write_bytes(tiny_model.read_bytes() + b"\x00")
        write_manifest(tiny_model, make_manifest())
        assert needs_manifest(tiny_model, plan)

    def test_beside_the_model_none_is_needed(self, tiny_model: Path) -> None:
        assert not needs_manifest(tiny_model, tiny_model.with_suffix(".trt"))
        link = tiny_model.parent.parent / "link"
        link.symlink_to(tiny_model.parent)
        assert not needs_manifest(tiny_model, link / "lamp.trt")

    def test_another_models_manifest_is_never_replaced(
        self, tiny_model: Path, tmp_path: Path, gpu: FakeGpu
    ) -> None:
        for name in ("cap.onnx", "cap.json"):
            shutil.copy(tiny_model.with_suffix(Path(name).suffix), tmp_path / name)
        before = (tmp_path / "cap.json").read_bytes()
        with pytest.raises(ConfigurationError, match=r"cap\.json is the manifest of cap\.onnx"):
            call(tiny_model, out=tmp_path / "cap.trt")
        assert (tmp_path / "cap.json").read_bytes() == before
        assert not (tmp_path / "cap.trt").exists()

    def test_a_file_that_is_no_manifest_is_never_replaced(
        self, tiny_model: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "package.json").write_text("{}")
        with pytest.raises(ConfigurationError, match="is no manifest of Patchline"):
            needs_manifest(tiny_model, tmp_path / "package.trt")

    def test_a_model_without_a_manifest(self, tiny_model: Path, tmp_path: Path) -> None:
        manifest_path(tiny_model).unlink()
        with pytest.raises(ManifestError, match="is missing"):
            needs_manifest(tiny_model, tmp_path / "lamp.trt")


def test_sizes_name_the_setting_that_is_wrong() -> None:
    assert parse_bytes("1.5G", "--workspace") == 3 << 29
    with pytest.raises(ConfigurationError, match="--workspace is 'x', expected for example 4G"):
        parse_bytes("x", "--workspace")
