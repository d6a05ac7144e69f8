"""The parts of the peers' benchmark, each for itself: no network, no times."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from patchline.benchmarks.peers import environments as environments_module
from patchline.benchmarks.peers import part_coreset, part_latency
from patchline.benchmarks.peers.catalogue import NOTES, OTHERS, PATCHLINE, chosen, makers
from patchline.benchmarks.peers.conversation import SCRIPTS, Worker, environment
from patchline.benchmarks.peers.environments import PINS, Environments, run_logged
from patchline.benchmarks.peers.part_coreset import along_a_line
from patchline.benchmarks.peers.part_install import RUNTIMES, _sizes, start_ms
from patchline.benchmarks.peers.part_latency import rounds_within, rows_of
from patchline.benchmarks.peers.record import Record, quartiles, show, spread
from patchline.benchmarks.peers.worker import serve
from patchline.benchmarks.schema import _faults
from patchline.export.coreset import greedy_coreset
from patchline.runtime.errors import ConfigurationError, DataError, EngineError

ROOT = Path(__file__).parents[2]

PEER = """
import os, sys, time
PACKAGES = ["numpy"]
COMMANDS = ["load", "fail", "die", "sleep", "speak"]
print("a library that prints")
def load(**given): return {"variant": VARIANT, "given": given, "cwd": os.getcwd()}
def fail(): raise ValueError("first line\\nsecond line")
def die(): print("the last words", file=sys.stderr); sys.stderr.flush(); os._exit(3)
def sleep(): time.sleep(60)
def speak(): print("more of it"); os.system("echo from a child"); return {"spoken": True}
def read(path): return int(path)
def judge(frame):
    import numpy as np
    return float(np.mean(frame)), np.full((2, 2), np.mean(frame))
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "peer.py"
    path.write_text(PEER)
    return str(path)


@pytest.fixture
def worker(script: str, tmp_path: Path) -> Any:
    with Worker(
        "someone", Path(sys.executable), script, tmp_path / "scratch", threads=1, variant="fast"
    ) as opened:
        yield opened


def test_a_worker_says_what_it_is(worker: Worker, tmp_path: Path) -> None:
    assert worker.hello["packages"] == {"numpy": np.__version__}
    assert worker.hello["import_s"] >= 0
    assert worker.hello["peak_mib"] > 1
    answer = worker.ask("load", folder="x", threads=2)
    assert answer["variant"] == "fast"
    assert answer["given"] == {"folder": "x", "threads": 2}
    assert answer["cwd"] == str((tmp_path / "scratch").resolve())


def test_what_a_library_prints_is_no_answer(worker: Worker, tmp_path: Path) -> None:
    assert worker.ask("speak") == {"spoken": True}
    log = (tmp_path / "scratch" / "someone.log").read_text()
    assert log.splitlines() == ["a library that prints", "more of it", "from a child"]


def test_a_worker_times_every_frame_after_the_warm_up(worker: Worker, tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", np.zeros((3, 4, 4, 3), np.uint8))
    times_ms = worker.ask("run", frames=str(tmp_path / "frames.npy"), count=5, warmup=2)["times_ms"]
    assert len(times_ms) == 5
    assert all(time_ms > 0 for time_ms in times_ms)


def test_a_worker_scores_in_the_order_given(worker: Worker, tmp_path: Path) -> None:
    out = tmp_path / "scores.npz"
    assert worker.ask("score", pictures=["3", "1", "2"], out=str(out)) == {"pictures": 3}
    with np.load(out) as found:
        assert found["scores"].tolist() == [3, 1, 2]
        assert found["maps"].shape == (3, 2, 2)
        assert found["maps"].dtype == np.float32


def test_an_error_is_one_line_and_the_worker_goes_on(worker: Worker) -> None:
    with pytest.raises(EngineError, match=r"^someone: ValueError: first line$"):
        worker.ask("fail")
    with pytest.raises(EngineError, match="someone: KeyError: 'nothing of that name'"):
        worker.ask("nothing of that name")
    assert worker.ask("speak") == {"spoken": True}


def test_a_worker_that_ends_is_an_error_with_its_last_words(worker: Worker) -> None:
    with pytest.raises(EngineError, match="someone ended with status 3: the last words"):
        worker.ask("die")
    with pytest.raises(EngineError, match="someone ended with status 3"):
        worker.ask("speak")


def test_a_worker_that_takes_too_long_is_ended(worker: Worker) -> None:
    with pytest.raises(EngineError, match=r"someone did not finish within 0\.2 s"):
        worker.ask("sleep", limit_s=0.2)
    with pytest.raises(EngineError, match="ended with status"):
        worker.ask("speak")


def test_a_script_that_cannot_be_loaded_is_an_error_at_once(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import a_package_nobody_has")
    with pytest.raises(EngineError, match="it: ModuleNotFoundError: No module named 'a_package"):
        Worker("it", Path(sys.executable), str(path), tmp_path, threads=1)
    path.write_text("PACKAGES = ['a-distribution-nobody-has']\nCOMMANDS = []")
    with pytest.raises(EngineError, match="PackageNotFoundError"):
        Worker("it", Path(sys.executable), str(path), tmp_path, threads=1)


def test_serving_in_this_process(script: str, tmp_path: Path) -> None:
    asked = [{"do": "load", "n": 1}, {"do": "memory"}, {"do": "quit"}, {"do": "load", "n": 2}]
    answers = io.StringIO()
    serve(Path(script), "slow", io.StringIO("\n".join(map(json.dumps, asked))), answers)
    hello, loaded, memory = map(json.loads, answers.getvalue().splitlines())
    assert hello["ok"]["packages"] == {"numpy": np.__version__}
    assert loaded["ok"]["variant"] == "slow"
    assert memory["ok"]["peak_mib"] > 1


def test_every_worker_gets_the_same_threads_and_nothing_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    given = environment(3)
    assert "PYTHONPATH" not in given
    assert {given[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} == {"3"}


class FakeRun:
    """Notes commands; ``venv`` makes an empty Python, ``pip`` may fail."""

    def __init__(self, failing: str = "") -> None:
        self.commands: list[list[str]] = []
        self.failing = failing
        self.copied: list[str] = []

    def __call__(self, command: list[str], log: Path) -> None:
        self.commands.append(command[1:])
        if command[2] == "venv":
            python = Path(command[3]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.write_text("")
        elif self.failing and self.failing in command[-1]:
            raise EngineError("pip said no")
        if command[-1].endswith("[cpu]"):
            copy = Path(command[-1].removesuffix("[cpu]"))
            self.copied = sorted(path.name for path in copy.iterdir())


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    (root / PINS).mkdir(parents=True)
    (root / PINS / "torch.txt").write_text("torch==1\n")
    (root / PINS / "patchline.txt").write_text("numpy==2\n")
    for folder in ("export", "runtime", "calibration"):
        (root / folder).mkdir()
        (root / folder / "a.py").write_text("a = 1\n")
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        (root / file).write_text("")
    monkeypatch.chdir(root)
    return root


def test_an_environment_is_made_once_and_again_when_its_pins_change(checkout: Path) -> None:
    run = FakeRun()
    found = Environments(Path("work"), run=run)
    python = found.python("torch")
    assert python == checkout / "work/environments/torch/bin/python"
    venv, pip = run.commands
    assert venv[:2] == ["-m", "venv"]
    assert pip[-2:] == ["--requirement", str(PINS / "torch.txt")]
    assert Environments(Path("work"), run=run).python("torch") == python
    assert len(run.commands) == 2
    (python.parent / "old").write_text("")
    (checkout / PINS / "torch.txt").write_text("torch==2\n")
    assert found.python("torch") == python  # within a run nothing changes
    assert len(run.commands) == 2
    assert Environments(Path("work"), run=run).python("torch") == python
    assert len(run.commands) == 4
    assert not (python.parent / "old").exists()


def test_patchlines_environment_is_made_again_when_its_code_changes(checkout: Path) -> None:
    run = FakeRun()
    Environments(Path("work"), run=run).python("patchline")
    assert run.commands[-1][-1].endswith("[cpu]")
    assert {"pyproject.toml", "runtime", "benchmarks"} <= set(run.copied)
    Environments(Path("work"), run=run).python("patchline")
    assert len(run.commands) == 3
    (checkout / "runtime" / "a.py").write_text("a = 2\n")
    Environments(Path("work"), run=run).python("patchline")
    assert len(run.commands) == 6


def test_an_environment_that_failed_is_tried_again(checkout: Path) -> None:
    found = Environments(Path("work"), run=FakeRun("torch.txt"))
    with pytest.raises(EngineError, match="pip said no"):
        found.python("torch")
    run = FakeRun()
    Environments(Path("work"), run=run).python("torch")
    assert len(run.commands) == 2


def test_environments_that_need_no_making(checkout: Path) -> None:
    run = FakeRun()
    found = Environments(Path("work"), given={"torch": Path("mine")}, run=run)
    assert found.python("torch") == Path("mine")
    assert found.python("benchmark") == Path(sys.executable)
    assert run.commands == []
    with pytest.raises(ConfigurationError, match="Run this from the root of a checkout"):
        found.python("nobody")


def test_a_command_that_fails_is_named_with_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import sys; print('before'); print('the reason'); sys.exit(1)"
    with pytest.raises(EngineError, match="failed: the reason"):
        run_logged([sys.executable, "-c", code], log)
    run_logged([sys.executable, "-c", "print('more')"], log)
    assert log.read_text().splitlines() == ["before", "the reason", "more"]


def test_every_environment_has_pins_and_every_pin_is_exact() -> None:
    runtimes = [runtime for some in RUNTIMES.values() for runtime in some]
    peers = [*PATCHLINE, *OTHERS.values()]
    names = {peer.environment for peer in peers} | {runtime.environment for runtime in runtimes}
    assert names == {path.stem for path in (ROOT / PINS).glob("*.txt")}
    for path in (ROOT / PINS).glob("*.txt"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert lines
        assert all("==" in line for line in lines), path
    assert "anomalib==2.7.0" in (ROOT / PINS / "anomalib.txt").read_text().splitlines()
    assert environments_module.PINS.is_absolute() is False


def test_the_catalogue_is_whole() -> None:
    peers = chosen(list(OTHERS))
    assert {peer.name for peer in peers} == set(NOTES)
    assert {peer.name for peer in chosen([])} == {peer.name for peer in PATCHLINE}
    assert [maker.name for maker in makers(peers)] == [
        "patchline", "anomalib", "patchcore-inspection", "torch",
    ]  # fmt: skip
    scripts = {peer.script for peer in peers} | {maker.script for maker in makers(peers)}
    assert all((SCRIPTS / script).is_file() for script in scripts)
    assert RUNTIMES.keys() == {"patchline", *OTHERS}
    with pytest.raises(ConfigurationError, match="no peer nobody, expected some of: anomalib"):
        chosen(["torch", "nobody"])


def _linear(calls: list[int], a_pick_s: float) -> Callable[[int], float]:
    def seconds(picks: int) -> float:
        calls.append(picks)
        return 2.0 + a_pick_s * picks

    return seconds


def test_a_coreset_within_the_limit_is_measured_whole() -> None:
    calls: list[int] = []
    one, ten = along_a_line(_linear(calls, 0.001), [2000, 20000], limit_s=60)
    assert calls == [20, 120, 2000, 20000]
    assert (one.picks_measured, ten.picks_measured) == (2000, 20000)
    assert (one.seconds, ten.seconds) == (pytest.approx(4.0), pytest.approx(22.0))


def test_a_coreset_past_the_limit_lies_on_the_line() -> None:
    calls: list[int] = []
    one, ten = along_a_line(_linear(calls, 0.01), [2000, 20000], limit_s=30)
    assert calls == [20, 120, 2000]  # 2,800 picks are all the limit has: not worth another run
    assert (one.picks_measured, ten.picks_measured) == (2000, 2000)
    assert ten.seconds == pytest.approx(202.0)


def test_a_very_slow_coreset_is_measured_as_far_as_the_limit_goes() -> None:
    calls: list[int] = []
    one, ten = along_a_line(_linear(calls, 0.1), [2000, 20000], limit_s=32)
    assert calls[:2] == [20, 120]
    assert max(calls) <= 320
    assert one.picks_measured == ten.picks_measured == max(calls)
    assert (one.seconds, ten.seconds) == (pytest.approx(202.0), pytest.approx(2002.0))


def test_a_tiny_coreset_is_measured_as_it_is() -> None:
    calls: list[int] = []
    (one,) = along_a_line(_linear(calls, 0.1), [5], limit_s=30)
    assert calls == [5]
    assert one == part_coreset.Timed(2.5, 5)


def test_rounds_are_those_that_the_time_allows() -> None:
    assert rounds_within(60, 5, 9) == 9
    assert rounds_within(60, 10, 9) == 6
    assert rounds_within(60, 100, 9) == part_latency.LEAST_ROUNDS
    assert rounds_within(60, 100, 2) == 2


def test_rows_of_latency_are_medians_with_ratios_round_by_round() -> None:
    blocks = {"patchline": [[1.0, 1.0], [4.0, 4.0]], "torch": [[2.0, 2.0], [4.0, 4.0]]}
    facts: dict[str, Any] = {
        "patchline": {"model_mib": 3.0, "precision": "float32"},
        "torch": {"model_mib": 4.0, "precision": "bfloat16"},
    }
    own, other = rows_of(blocks, {"backbone": "resnet18", "bank_rows": 7}, facts)
    assert own["median_ms"] == 2.5
    assert own["runs"] == 4
    assert own["rounds"] == 2
    assert "patchline_over_peer" not in own
    assert other["patchline_over_peer"]["median"] == 0.75
    assert (other["backbone"], other["bank_rows"], other["model_mib"]) == ("resnet18", 7, 4.0)
    assert (own["precision"], other["precision"]) == ("float32", "bfloat16")
    (alone,) = rows_of({"torch": [[2.0]]}, {}, facts)
    assert "patchline_over_peer" not in alone


def test_a_failure_is_noted_with_its_reason_and_shown() -> None:
    said: list[str] = []
    record = Record(said.append)

    def refuse() -> None:
        raise DataError("no such thing")

    assert record.attempt({"peer": "a"}, lambda: 7) == 7
    assert record.attempt({"peer": "b", "bank_rows": 5}, refuse) is None
    assert record.failed == [{"peer": "b", "bank_rows": 5, "reason": "no such thing"}]
    assert said == ["FAILED b, 5: no such thing"]
    ratio = {"median": 0.5, "q1": 0.4, "q3": 0.6}
    record.rows.append({"peer": "a", **spread([1.0, 2.0, 3.0], "ms"), "patchline_over_peer": ratio})
    document = record.document(what="x")
    assert not list(_faults(document, ()))
    text = io.StringIO()
    show(Console(file=text, width=200), "latency", document)
    shown = text.getvalue()
    assert "0.5 (0.4 to 0.6)" in shown
    assert "latency: failed" in shown
    assert "no such thing" in shown


def test_quartiles_are_those_of_the_report() -> None:
    from patchline.benchmarks.report import summarize

    values = [3.0, 1.0, 7.0, 4.0, 9.0]
    reference = summarize(values)
    found = (reference["q1_ms"], reference["median_ms"], reference["q3_ms"])
    assert quartiles(values) == found
    assert quartiles([5.0]) == (5.0, 5.0, 5.0)


def test_sizes_leave_out_what_only_a_gpu_needs(tmp_path: Path) -> None:
    site = tmp_path / "env" / "lib" / "site-packages"
    sizes = {
        "nvidia/cublas/lib/libcublas.so": 2, "triton/a.so": 1, "torch/lib/libtorch_cpu.so": 3,
        "torch/lib/libtorch_cuda.so": 4, "torch/lib/libc10_cuda.so": 1, "numpy/a.py": 1,
    }  # fmt: skip
    for name, mib in sizes.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(b"0" * (mib << 20))
    (site / "link").symlink_to(site / "numpy" / "a.py")
    assert _sizes(tmp_path / "env") == {"installed_mib": 12.0, "without_cuda_mib": 4.0}


def test_a_start_is_timed_and_its_error_named() -> None:
    assert start_ms(Path(sys.executable), "pass", 1) > 0
    with pytest.raises(EngineError, match="import nobody failed: ModuleNotFoundError"):
        start_ms(Path(sys.executable), "import nobody", 1)


def test_the_plain_peers_coreset_is_the_textbooks() -> None:
    from patchline.benchmarks.peers import worker_torch

    rows = torch.randn(300, 160, generator=torch.Generator().manual_seed(3))
    picks = worker_torch.pick(rows, 40)
    matrix = torch.randn(160, 128, generator=torch.Generator().manual_seed(0)) / 128**0.5
    projected = rows @ matrix
    expected = [picks[0]]
    while len(expected) < 40:
        nearest = torch.cdist(projected.double(), projected[expected].double()).amin(1)
        expected.append(int(nearest.argmax()))
    assert picks == expected
    assert len(set(picks)) == 40
    own = greedy_coreset(projected, 40, seed=0)
    radius = torch.cdist(projected, projected[picks]).amin(1).max()
    assert float(radius) == pytest.approx(own.radius, rel=0.15)


def test_the_plain_peers_map_is_smoothed_like_scipys() -> None:
    from scipy import ndimage

    from patchline.benchmarks.peers import worker_torch

    scores = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    found = worker_torch.to_map(scores, (64, 64))
    enlarged = torch.nn.functional.interpolate(scores[None, None], size=(64, 64), mode="bilinear")
    expected = ndimage.gaussian_filter(enlarged[0, 0].numpy(), 4.0, mode="mirror", truncate=4.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
