"""Weights & Biases offline, read back from its files; its server away; and nothing ever asked.

Each run has a process of its own: wandb keeps settings, a helper and hooks for the end in the
process that it is used in.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest

from .wandb_files import items, of_kind, read_file, read_run, run_folder

PROGRAM = """
import sys, time, warnings
warnings.simplefilter("error")
from pathlib import Path
import numpy as np
from patchline.export.tracking import TrackSettings, create_tracker, wandb_tracker

wandb_tracker._BEGIN, wandb_tracker._LONGEST_BEGIN_S = 1e3, float(sys.argv[2])

settings = TrackSettings(
    track="wandb", project="plant", name=None, tags=("night", "line 2"), notes="a note",
    folder=Path("runs"), log_every=2, finish_timeout_s=float(sys.argv[1]),
)
picture = np.zeros((6, 10, 3), np.uint8)
picture[..., 0] = 250
with create_tracker(settings, "lamp 1") as tracker:
    tracker.config({"train": {"lr": 0.1}, "path": Path("a/b")})
    tracker.config({"path": "c"})
    for step in range(5):
        tracker.log({"loss": 1 / (step + 1)}, step=step)
    tracker.log({"metrics/lamp/image_auroc": 0.75, "loss": 0.1}, step=3)
    tracker.images("examples", {"chip 000": picture}, step=3)
    Path("lamp.onnx").write_bytes(b"model")
    Path("lamp.json").write_text("{}")
    tracker.model(Path("lamp.onnx"), metadata={"epoch": 3, "image_auroc": 0.9})
    tracker.summary({"best": 0.9})
    while tracker._worker._backend is None and not tracker._worker.wait(0):
        time.sleep(0.05)
print("trained")
"""


@dataclass(frozen=True)
class Done:
    """A run's folder and what it printed."""

    folder: Path
    stdout: str
    stderr: str


def run(
    folder: Path, *, finish_timeout_s: float, begin_timeout_s: float = 30, **environment: str
) -> Done:
    """Run the program in a folder of its own, with a home of its own, and no terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    homes = {name: str(folder / "home") for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_DATA_DIR")}
    (folder / "home").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(finish_timeout_s), str(begin_timeout_s)],
        cwd=folder,
        env=kept | homes | {"NETRC": str(folder / "netrc")} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return Done(folder, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One run with everything in it."""
    return run(tmp_path_factory.mktemp("offline"), finish_timeout_s=60, WANDB_MODE="offline")


@pytest.fixture(scope="module")
def records(offline: Done) -> list[Any]:
    return read_run(offline.folder / "runs")


def test_nothing_is_printed(offline: Done) -> None:
    assert (offline.stdout, offline.stderr) == ("trained\n", "")


def test_the_run_is_described(records: list[Any]) -> None:
    (described,) = of_kind(records, "run")
    assert (described.project, described.display_name) == ("plant", "lamp 1")
    assert (list(described.tags), described.notes) == (["night", "line 2"], "a note")
    config: dict[str, Any] = {}
    for record in of_kind(records, "config"):
        config |= items(record.update)
    assert config == {"train": {"lr": 0.1}, "path": "c"}


def history(records: list[Any], name: str, axis: str) -> list[tuple[int, float]]:
    rows = [items(record.item) for record in of_kind(records, "history")]
    return [(row[axis], row[name]) for row in rows if name in row]


def test_numbers_have_their_axes(records: list[Any]) -> None:
    assert history(records, "loss", "step") == [
        (0, 1.0),
        (2, pytest.approx(1 / 3)),
        (4, 0.2),
        (3, 0.1),
    ]
    assert history(records, "metrics/lamp/image_auroc", "metrics_step") == [(3, 0.75)]
    axes = {record.name: record.step_metric for record in of_kind(records, "metric")}
    assert axes == {"loss": "step", "metrics/lamp/image_auroc": "metrics_step"}


def test_results_and_status_are_in_the_summary(records: list[Any]) -> None:
    summary: dict[str, Any] = {}
    for record in of_kind(records, "summary"):
        summary |= items(record.update)
    assert (summary["best"], summary["status"]) == (0.9, "finished")
    assert summary["metrics/lamp/image_auroc"] == 0.75
    (end,) = of_kind(records, "exit")
    assert end.exit_code == 0


def test_pictures_are_whole_and_in_rgb(offline: Done, records: list[Any]) -> None:
    rows = [items(record.item) for record in of_kind(records, "history")]
    (row,) = [row for row in rows if "examples.filenames" in row]
    assert (row["examples.captions"], row["metrics_step"]) == (["chip 000"], 3)
    (name,) = row["examples.filenames"]
    decoded = cv2.imread(str(run_folder(offline.folder / "runs") / "files" / name))
    assert decoded is not None
    assert decoded.shape == (6, 10, 3)
    assert (decoded == (0, 0, 250)).all()  # BGR


def test_the_model_is_an_artifact(records: list[Any]) -> None:
    (artifact,) = of_kind(records, "artifact")
    assert (artifact.type, artifact.name) == ("model", "lamp")
    assert json.loads(artifact.metadata) == {"epoch": 3, "image_auroc": 0.9}
    files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    assert sorted(files) == ["lamp.json", "lamp.onnx"]
    assert files["lamp.onnx"].read_bytes() == b"model"


def test_neither_source_code_nor_the_terminal_is_kept(offline: Done, records: list[Any]) -> None:
    kept = {path.name for path in run_folder(offline.folder / "runs").rglob("*") if path.is_file()}
    assert not {name for name in kept if name.endswith((".py", ".patch", ".diff"))}
    assert "output.log" not in kept
    (described,) = of_kind(records, "run")
    assert (described.git.remote_url, described.git.commit) == ("", "")


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a server that takes connections, and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_without_its_server_the_run_is_kept_offline(deaf: str, tmp_path: Path) -> None:
    account = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": deaf}
    done = run(tmp_path, finish_timeout_s=60, begin_timeout_s=1, **account)
    assert done.stdout == "trained\n"
    folder = run_folder(tmp_path / "runs").relative_to(tmp_path)
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: Weights & Biases cannot be reached or refuses (")
    assert warning.endswith(
        f"the run is kept on this machine. Send it later with: wandb sync {folder}"
    )
    records = read_run(tmp_path / "runs")
    assert len(history(records, "loss", "step")) == 4
    assert len(of_kind(records, "artifact")) == 1
    assert len(of_kind(records, "exit")) == 1


class _UntilBegun(http.server.BaseHTTPRequestHandler):
    """Answers until a run has begun, and then keeps silent."""

    has_begun, is_over = threading.Event(), threading.Event()

    def do_POST(self) -> None:
        question = self.rfile.read(int(self.headers["content-length"] or 0))
        if self.has_begun.is_set():
            self.is_over.wait(60)
            return
        data: dict[str, Any] = {}
        if b"mutation UpsertBucket" in question:
            self.has_begun.set()
            name = json.loads(question)["variables"]["name"]
            project = {"name": "plant", "entity": {"name": "me"}}
            bucket = {"id": "x", "name": name, "config": "{}", "project": project}
            data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"data": data}).encode())

    def log_message(self, *given: Any) -> None:
        """Nothing."""


@pytest.fixture
def leaving() -> Iterator[str]:
    """The address of a server that goes away once a run has begun."""
    _UntilBegun.has_begun.clear()
    _UntilBegun.is_over.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _UntilBegun) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        _UntilBegun.is_over.set()
        server.shutdown()


def test_a_server_that_goes_away_does_not_keep_the_process(leaving: str, tmp_path: Path) -> None:
    account = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": leaving}
    done = run(tmp_path, finish_timeout_s=4, **account)
    assert done.stdout == "trained\n"
    *_, warning = done.stderr.splitlines()
    assert warning.startswith("warning: Weights & Biases ")
    (folder,) = (tmp_path / "runs" / "wandb").glob("run-*")
    assert warning.endswith(f"Send it later with: wandb sync {folder.relative_to(tmp_path)}")
    (file,) = folder.glob("*.wandb")
    assert len(history(read_file(file), "loss", "step")) == 4
