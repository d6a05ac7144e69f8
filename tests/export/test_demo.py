"""The demo: which weights it takes, which commands it runs, and what it makes of their words."""

from __future__ import annotations

import functools
import http.server
import io
import json
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from patchline.export.demo import __main__ as demo
from patchline.export.demo import backbone, commands
from patchline.export.demo.backbone import BackboneWeights, answers, choose_weights
from patchline.export.demo.pictures import write_demo_data
from patchline.export.demo.report import evaluate
from patchline.runtime.errors import PatchlineError

UNTRAINED = choose_weights(None, lambda: False)


def never() -> bool:
    raise AssertionError("the hub was asked without need")


def verdict(file: str, score: float, threshold: float = 0.5) -> str:
    document = {
        "file": file,
        "score": score,
        "threshold": threshold,
        "anomalous": score >= threshold,
        "ms": {"read": 9.0, "preprocess": 1.0, "infer": 20.0},
    }
    return json.dumps(document) + "\n"


class FakeCommands:
    """Writes down the command lines; its camera calls every defective picture but one."""

    def __init__(self, fail: str | None = None) -> None:
        self.seen: list[list[str]] = []
        self._fail = fail

    def __call__(self, words: Sequence[str], *, capture: bool) -> str:
        self.seen.append(list(words))
        if words[0] == self._fail:
            raise PatchlineError(f"{words[0]} failed with exit status 1")
        if words[0] != "run-camera":
            return ""
        assert capture
        test = Path(words[words.index("--source") + 1])
        files = sorted(file.relative_to(test).as_posix() for file in test.glob("*/*.png"))
        scores = [0.1 if file.startswith("good/") else 0.9 for file in files]
        scores[0] = 0.3
        return "".join(map(verdict, files, scores))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo's folder; its pictures are small, and drawn by the first test that needs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "write_demo_data", functools.partial(write_demo_data, size=(72, 72)))
        yield tmp_path_factory.mktemp("demo")


def speak() -> tuple[Console, io.StringIO]:
    said = io.StringIO()
    return Console(file=said, width=120, highlight=False), said


# Which weights


def test_the_hub_is_taken_where_it_answers() -> None:
    chosen = choose_weights(None, lambda: True)
    assert chosen.option is None
    assert chosen.warning is None
    assert "timm/resnet18" in chosen.description


def test_without_the_hub_the_backbone_is_untrained_and_says_so() -> None:
    assert UNTRAINED.option == "random"
    assert UNTRAINED.warning is not None
    assert "UNTRAINED" in UNTRAINED.warning and "no claim" in UNTRAINED.warning


def test_weights_that_are_asked_for_are_taken_without_asking_the_hub() -> None:
    assert choose_weights("own.pth", never) == BackboneWeights(
        "own.pth", "resnet18, weights of own.pth"
    )
    assert "As asked" in str(choose_weights("random", never).warning)


def test_a_cached_file_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(backbone, "_is_cached", lambda repository: True)
    assert backbone.pretrained_is_available()


def test_offline_mode_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "YES")
    monkeypatch.setattr(backbone, "_is_cached", lambda repository: False)
    monkeypatch.setattr(backbone, "answers", lambda url: never())
    assert not backbone.pretrained_is_available()


class _Hub(http.server.BaseHTTPRequestHandler):
    asked: list[str]

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/here")
        else:
            self.send_response(404 if self.path.startswith("/absent") else 200)
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(_Hub, "asked", [], raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_the_hub_of_the_environment_is_asked_for_the_weights(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub + "/")
    monkeypatch.setattr(backbone, "_is_cached", lambda repository: False)
    assert backbone.pretrained_is_available()
    assert _Hub.asked == [f"/{backbone.hub_id()}/resolve/main/model.safetensors"]


def test_an_answer_counts_where_the_file_is_there(hub: str) -> None:
    assert answers(f"{hub}/file")
    assert answers(f"{hub}/moved")
    assert not answers(f"{hub}/absent")


def test_a_hub_that_refuses_or_has_no_name_does_not_answer() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert not answers(f"http://127.0.0.1:{port}/file")
    assert not answers("http://hub.invalid/file", timeout_s=2.0)
    assert not answers("no address at all")


def test_a_hub_that_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*args: object, **kwargs: object) -> None:
        released.wait(30)  # as a name lookup does, which heeds no timeout
        raise OSError

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    start = time.monotonic()
    assert not answers("http://hub.example/file", timeout_s=0.1)
    assert time.monotonic() - start < 5
    released.set()


# What it runs and says


def test_it_runs_the_commands_a_user_would_type(out: Path) -> None:
    run, (console, _) = FakeCommands(), speak()
    demo.run_demo(out, UNTRAINED, run, console)
    data, models = out / "data", out / "models"
    export, camera = (" ".join(words) for words in run.seen)
    assert export.startswith(f"export-model --cls gasket --data {data} --backbone resnet18")
    assert "--coreset-ratio 0.05 --weights random" in export
    assert export.endswith(f"--out {models}")
    assert camera == (
        f"run-camera --engine {models / 'gasket.onnx'} --source {data / 'gasket' / 'test'} "
        f"--headless --output {out / 'annotated'}"
    )


def test_the_hubs_weights_are_left_to_the_exporter() -> None:
    assert "--weights" not in demo.export_words(Path("demo"), choose_weights(None, lambda: True))


def test_it_ends_with_a_table_and_how_to_go_on(out: Path) -> None:
    run, (console, said) = FakeCommands(), speak()
    result = demo.run_demo(out, UNTRAINED, run, console)
    text = said.getvalue()
    assert result.image_auroc == 1.0
    cells = {"image AUROC": "1.000", "defects found": "9/10", "false alarms": "0/10"}
    cells |= {"good pictures fitted on": "60", "median per frame": "21.0 ms"}
    cells |= {"backbone": "resnet18, untrained"}
    for name, value in cells.items():
        (line,) = (line for line in text.splitlines() if name in line and "│" in line)
        assert value in line
    assert f"Annotated pictures: {out / 'annotated'}" in text
    assert "test://" in text and "--source 0" in text and "--cls NAME" in text


def test_the_warning_is_one_line(out: Path) -> None:
    console, said = speak()
    demo.run_demo(out, UNTRAINED, FakeCommands(), console)
    assert str(UNTRAINED.warning) in said.getvalue().splitlines()
    console, said = speak()
    demo.run_demo(out, choose_weights("own.pth"), FakeCommands(), console)
    assert "UNTRAINED" not in said.getvalue()


def test_after_a_failed_command_nothing_else_runs(out: Path) -> None:
    run, (console, said) = FakeCommands(fail="export-model"), speak()
    with pytest.raises(PatchlineError, match="export-model failed"):
        demo.run_demo(out, UNTRAINED, run, console)
    assert len(run.seen) == 1
    assert "AUROC" not in said.getvalue()


def test_a_failure_exits_with_1_and_a_sentence(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "run_command_line", FakeCommands(fail="run-camera"))
    monkeypatch.setattr(sys, "argv", ["demo", "--out", str(out), "--weights", "random"])
    with pytest.raises(SystemExit) as ended:
        demo.main()
    assert ended.value.code == 1
    assert "run-camera failed with exit status 1" in capsys.readouterr().err


# Its children


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that stands behind ``run-camera``, to be written."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(commands.MODULES, "run-camera", "fake_child")
    return tmp_path / "fake_child.py"


def test_a_command_line_is_shown_and_its_output_captured(
    child: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    child.write_text("import sys; print(sys.argv[1:]); print('progress', file=sys.stderr)")
    said = commands.run_command_line(["run-camera", "--source", "my folder"], capture=True)
    assert said.strip() == "['--source', 'my folder']"
    out, err = capfd.readouterr()
    assert "$ run-camera --source 'my folder'" in out
    assert "progress" in err


def test_output_that_is_not_captured_comes_through(
    child: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    child.write_text("print('fitted')")
    assert commands.run_command_line(["run-camera"], capture=False) == ""
    assert capfd.readouterr().out.splitlines()[-2:] == ["$ run-camera", "fitted"]


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("import sys; print('why', file=sys.stderr); sys.exit(3)", "failed with exit status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by signal 9"),
    ],
)
def test_a_child_that_fails_is_an_error(child: Path, code: str, ending: str) -> None:
    child.write_text(code)
    with pytest.raises(PatchlineError, match=f"run-camera {ending}"):
        commands.run_command_line(["run-camera"], capture=True)


# What it makes of the verdicts


def test_the_figures_are_counted_against_the_folders() -> None:
    scores = {"good/0.png": 0.1, "good/1.png": 0.6, "chip/0.png": 0.7, "chip/1.png": 0.3}
    lines = "".join(verdict(file, score) for file, score in scores.items())
    result = evaluate(lines, list(scores))
    assert result.image_auroc == 0.75
    assert (result.found, result.defective) == (1, 2)
    assert (result.false_alarms, result.good) == (1, 2)
    assert result.median_ms == 21.0


def test_a_picture_that_was_not_judged_is_an_error() -> None:
    with pytest.raises(PatchlineError, match="judged 1 pictures, expected each of 2"):
        evaluate(verdict("good/0.png", 0.1), ["good/0.png", "chip/0.png"])


@pytest.mark.parametrize("line", ["no json", "[]", "{}", '{"file": "a", "score": 1}'])
def test_a_line_that_is_no_verdict_is_an_error(line: str) -> None:
    with pytest.raises(PatchlineError, match="no verdict"):
        evaluate(line + "\n", [])
