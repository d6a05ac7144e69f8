"""Committed results hold the schema, and the schema catches what it is there for."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patchline.benchmarks import report, schema
from patchline.benchmarks.peers.page import page, page_path
from patchline.benchmarks.schema import check_file
from patchline.runtime.errors import DataError
from tests.programs import run_program

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / report.RESULTS).rglob("*.json"))
PAGES = sorted((ROOT / report.RESULTS).rglob("peers--*.md"))
SOUND: dict[str, Any] = {"rows": 3, "methods": {"loop": {"median_ms": 1.5, "runs": 3}}}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_a_committed_file_holds_the_schema(path: Path) -> None:
    assert check_file(path).results


def test_there_are_committed_files_and_nothing_else_but_charts_and_the_peers_pages() -> None:
    assert len(COMMITTED) >= 12
    for path in (ROOT / report.RESULTS).rglob("*"):
        if path.is_file() and path not in PAGES:
            assert path.suffix == (".svg" if path.parent.name == "charts" else ".json"), path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_of_the_peers_says_what_the_files_say(path: Path) -> None:
    assert path.read_text() == page(path.parent, path.stem.partition("--")[2])


def test_measured_peers_have_a_page() -> None:
    machines = {(path.parent, path.stem.partition("--")[2]) for path in COMMITTED if is_peers(path)}
    assert {page_path(*machine) for machine in machines} == set(PAGES)


def is_peers(path: Path) -> bool:
    return path.name.startswith("peers-")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return report.write_result("some-suite", SOUND, tmp_path)


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def test_what_is_written_holds_the_schema_and_lies_in_its_place(written: Path) -> None:
    result = check_file(written)
    assert (result.suite, result.results) == ("some-suite", SOUND)
    assert written.parent.name == result.machine.packages["patchline"]
    assert result.machine.memory_mib is not None
    assert result.run is not None
    assert result.run.command[0] == "python"
    assert result.run.duration_s >= 0
    assert result.run.threads.usable_cores >= 1


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no machine": (lambda d: d.pop("machine"), "machine: Field required"),
    "no date": (lambda d: d.pop("date"), "date: Field required"),
    "no suite": (lambda d: d.pop("suite"), "suite: Field required"),
    "no results": (lambda d: d.pop("results"), "results: Field required"),
    "empty results": (lambda d: d.update(results={}), "at least 1 item"),
    "results no object": (lambda d: d.update(results=[1]), "valid dictionary"),
    "more than is known": (lambda d: d.update(comment="x"), "comment: Extra inputs"),
    "more of the machine": (lambda d: d["machine"].update(gpu="x"), "gpu: Extra inputs"),
    "more of the run": (lambda d: d["run"].update(user="x"), "user: Extra inputs"),
    "no zone": (lambda d: d.update(date="2026-01-01T00:00:00"), "no time zone"),
    "no date at all": (lambda d: d.update(date="yesterday"), "isoformat"),
    "a date as a number": (lambda d: d.update(date=1767225600), "date: Input should be"),
    "a name with capitals": (lambda d: d.update(suite="Some suite"), "suite: String should match"),
    "no cores": (lambda d: d["machine"].update(cores=0), "cores: Input should be"),
    "cores as text": (lambda d: d["machine"].update(cores="2"), "cores: Input should be"),
    "no processor": (lambda d: d["machine"].update(cpu=" "), "cpu: String should have"),
    "no version": (lambda d: d["machine"]["packages"].pop("patchline"), "patchline is missing"),
    "no commit": (lambda d: d["run"].update(commit="main"), "commit: String should match"),
    "no command": (lambda d: d["run"].update(command=[]), "command: List should have"),
    "half a load": (lambda d: d["run"].update(load_average_end=[1.0]), "load_average_end: List"),
    "null": (lambda d: d["results"].update(rows=None), "rows is null"),
    "null within": (
        lambda d: d["results"]["methods"]["loop"].update(median_ms=None),
        "methods/loop/median_ms is null",
    ),
    "null in a list": (lambda d: d["results"].update(samples_ms=[1.0, None]), "samples_ms is null"),
    "no unit": (lambda d: d["results"].update(latency=3.1), "latency has no unit"),
    "no unit in a list": (lambda d: d["results"].update(memory=[1, 2]), "memory has no unit"),
    "a statistic of nothing": (lambda d: d["results"].update(loop={"median": 2}), "no unit"),
    "a path": (lambda d: d["results"].update(weights="/home/me/a.pth"), "path of one machine"),
    "a path as a name": (lambda d: d["results"].update({"/data/bottle": 1}), "path of one machine"),
    "a path in a sentence": (
        lambda d: d["results"].update(error="cannot read '/tmp/x/y.onnx'"), "path of one machine",
    ),
    "a path in a list": (lambda d: d["run"].update(command=["python", "/a/b.py"]), "path of one"),
    "a path of Windows": (lambda d: d["results"].update(weights=r"C:\me\a.pth"), "path of one"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(written: Path, name: str) -> None:
    check_file(written)
    change, message = FAULTS[name]
    with pytest.raises(DataError, match=r"is no results file: .*") as found:
        check_file(changed(written, change))
    assert message in str(found.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_found(written: Path, number: str) -> None:
    written.write_text(written.read_text().replace("1.5", number))
    with pytest.raises(DataError, match=r"no strict JSON|no figure"):
        check_file(written)


def test_a_name_that_is_there_twice_is_found(written: Path) -> None:
    written.write_text(written.read_text().replace('"rows": 3', '"rows": 3, "rows": 4'))
    with pytest.raises(DataError, match="a name is there twice among rows, rows"):
        check_file(written)


def test_half_a_file_is_found(written: Path) -> None:
    written.write_text(written.read_text()[:-20])
    with pytest.raises(DataError, match="is no results file"):
        check_file(written)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("0.1.0/other-suite--{machine}.json", "its suite and machine call it some-suite--"),
        ("0.1.0/some-suite--another-4-cores.json", "its suite and machine call it some-suite--"),
        ("9.9.9/some-suite--{machine}.json", "that is its folder"),
    ],
)
def test_a_file_in_the_wrong_place_is_found(written: Path, place: str, message: str) -> None:
    machine = written.stem.split("--")[1]
    path = written.parents[1] / place.format(machine=machine)
    path.parent.mkdir(exist_ok=True)
    written.rename(path)
    with pytest.raises(DataError, match=message):
        check_file(path)


def test_every_fault_is_named_at_once(written: Path) -> None:
    with pytest.raises(DataError) as found:
        check_file(changed(written, lambda d: d["results"].update(rows=None, memory=3)))
    assert "rows is null" in str(found.value)
    assert "memory has no unit" in str(found.value)


def test_older_files_lack_the_run_and_the_memory(written: Path) -> None:
    def age(document: dict[str, Any]) -> None:
        del document["run"], document["machine"]["memory_mib"]

    result = check_file(changed(written, age))
    assert (result.run, result.machine.memory_mib) == (None, None)


@pytest.mark.parametrize(
    "results",
    [
        {"fps": {"median": 3.0, "q1": 2.0}},
        {"loop_over_bare": {"median": 0.9}},
        {"times_the_closed_form": {"autograd": {"median": 2.6}}},
        {"image_size_px": 256, "fit_peak_bytes_planned": 3, "latency_over_fp32": 1.1},
        {"latency": {"median_ms": 3.0}},
        {"image_f1_max": 0.9, "is_forced": True},
        {"neighbors": None, "plan_bytes": None},
        {"speed": "frames/s", "shares": "1/2", "page": "https://example.org/a/b", "text": "and/or"},
    ],
)
def test_what_is_sound_is_left_alone(tmp_path: Path, results: dict[str, Any]) -> None:
    path = report.write_result("suite", results, tmp_path)
    assert json.loads(path.read_text())["results"] == results


def test_nulls_that_have_a_meaning_occur() -> None:
    texts = "".join(path.read_text() for path in COMMITTED)
    assert {name for name in schema.NULLS if f'"{name}": null' in texts} >= {"neighbors", "gate"}


def test_a_faulty_result_is_refused_but_not_lost(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows is null"):
        report.write_result("suite", {"rows": None, "found": 3}, tmp_path)
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())["results"]["found"] == 3


def test_nan_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        report.write_result("suite", {"share": float("nan")}, tmp_path)


def test_paths_are_reduced_to_their_last_part() -> None:
    given = {
        "weights": "/data/weights/a.pth",
        "error": "[Errno 2] No such file: '/tmp/x/y.onnx'",
        "/data/bottle": ["/opt", r"C:\Users\me\b.json", "a/b", "1 / 2", 3, None],
        "address": "https://example.org/a",
    }
    before = copy.deepcopy(given)
    assert report.without_folders(given) == {
        "weights": "a.pth",
        "error": "[Errno 2] No such file: 'y.onnx'",
        "bottle": ["opt", "b.json", "a/b", "1 / 2", 3, None],
        "address": "https://example.org/a",
    }
    assert given == before


def test_the_command_is_recorded_without_the_machines_paths() -> None:
    words = ["/x/.venv/bin/python3.10", "-m", "patchline.benchmarks.coreset", "--data", "/d/mvtec/"]
    words += ["--weights=../w/a.pth", "--rows", "30", "--python", "peer=/x/python"]
    assert report._command(words) == [
        "python", "-m", "patchline.benchmarks.coreset", "--data", "mvtec",
        "--weights=a.pth", "--rows", "30", "--python", "peer=python",
    ]  # fmt: skip


def test_the_time_of_each_result_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.time, "monotonic", lambda: 100.0)
    report.describe_run()
    monkeypatch.setattr(report.time, "monotonic", lambda: 107.5)
    assert report.describe_run()["duration_s"] == 7.5
    assert report.describe_run()["duration_s"] == 0.0


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one module and one result."""
    folder = tmp_path / "checkout"
    for name in ("code.py", "benchmarks/results/a.json", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1\n")
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        run_program([*git, *words], check=True)
    return folder


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    expected = report.git(checkout, "rev-parse", "HEAD")
    assert report.commit_of(checkout / "code.py") == report.Commit(expected, is_dirty=False)
    for harmless in ("benchmarks/results/a.json", "README.md"):
        (checkout / harmless).write_text("2\n")
    (checkout / "new.txt").write_text("2\n")
    assert report.commit_of(checkout / "code.py") == report.Commit(expected, is_dirty=False)


@pytest.mark.parametrize("name", ["code.py", "another.py", "benchmarks/settings.toml"])
def test_changed_or_new_code_makes_a_checkout_dirty(checkout: Path, name: str) -> None:
    (checkout / name).write_text("2\n")
    commit = report.commit_of(checkout / "code.py")
    assert commit is not None
    assert commit.is_dirty


def test_outside_a_checkout_there_is_no_commit(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text("1\n")
    assert report.commit_of(tmp_path / "alone.py") is None
    # An environment that lies in somebody else's checkout is not tracked there.
    (checkout / "site-packages").mkdir()
    (checkout / "site-packages" / "report.py").write_text("1\n")
    assert report.commit_of(checkout / "site-packages" / "report.py") is None


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert report.commit_of(checkout / "code.py") is None
