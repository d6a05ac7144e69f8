"""``score-archive`` as a user calls it: table, JSON, warnings, exit codes, one-sentence errors."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import cv2
import pandas
import pytest

from patchline.runtime.archive.scorer import Scorer
from patchline.runtime.cli import score_archive as command
from patchline.runtime.cli.command import Provider
from tests.commands import Caller, Finished

from .fakes import gray


class Scored:
    """Calls the command on the tiny model and the five pictures."""

    def __init__(self, caller: Caller, model: Path, images: Path, out: Path) -> None:
        self._caller = caller
        self.model, self.images, self.out = model, images, out

    def __call__(self, *words: object, images: object = None) -> Finished:
        paths = ("--model", self.model, "--images", images or self.images, "--out", self.out)
        return self._caller(command, *paths, "--threads", 1, *words)


@pytest.fixture
def scored(
    tiny_model: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Scored:
    caller = Caller(monkeypatch, capsys)
    return Scored(caller, tiny_model, pictures, tmp_path / "results.parquet")


def test_an_archive_is_scored_and_gone_on_with(scored: Scored) -> None:
    first = scored("--partition-size", 2, "--json")
    assert first.status == 0
    seconds, rate = first.document["seconds"], first.document["pictures_per_second"]
    assert first.document == {
        "out": str(scored.out),
        "class": "lamp",
        "model_sha256": first.document["model_sha256"],
        "threshold": 200.0,
        "pictures": 5,
        "anomalous": 1,
        "unreadable": 0,
        "not_finite": 0,
        "parts_written": 3,
        "parts_kept": 0,
        "pictures_scored": 5,
        "seconds": seconds,
        "pictures_per_second": rate,
        "workers": 1,
    }
    assert rate > 0
    assert cv2.imwrite(str(scored.images / "3.png"), gray(230))
    second = scored("--partition-size", 2, "--json")
    kept = ("pictures", "anomalous", "parts_written", "parts_kept", "pictures_scored")
    assert [second.document[name] for name in kept] == [6, 2, 1, 3, 1]
    assert "pictures new since the call before: 1" in second.stderr
    assert "3 of 4 parts are there already" in second.stderr
    assert list(pandas.read_parquet(scored.out)["verdict"]).count("anomalous") == 2


def test_the_table_has_the_figures(scored: Scored) -> None:
    finished = scored()
    assert finished.status == 0
    cells = [line.strip("│ ").split("│") for line in finished.stdout.splitlines() if "│" in line]
    table = {name.strip(): value.strip() for name, value in cells}
    assert float(table.pop("pictures per second")) > 0
    assert table == {
        "pictures": "5",
        "anomalous": "1",
        "unreadable": "0",
        "parts written": "1",
        "parts kept": "0",
        "workers": "1",
    }


def test_unreadable_pictures_are_a_warning(scored: Scored) -> None:
    for number in range(4):
        (scored.images / f"bad{number}.png").write_bytes(b"no picture")
    finished = scored("--json")
    assert finished.status == 0
    assert finished.document["unreadable"] == 4
    assert (
        "warning: 4 of 9 pictures have no score: cannot read bad0.png: not a picture, or damaged; "
        "cannot read bad1.png: not a picture, or damaged; cannot read bad2.png: not a picture, or "
        "damaged; …. The column error has all of them"
    ) in finished.stderr


def test_nothing_but_unreadable_pictures_is_an_error(scored: Scored) -> None:
    for picture in [*scored.images.rglob("*.*")]:
        picture.write_bytes(b"no picture")
    finished = scored("--json")
    assert finished.status == 1
    assert finished.document["unreadable"] == 5
    assert "5 of 5 pictures have no score" in finished.sentence
    assert len(pandas.read_parquet(scored.out)) == 5


def test_an_interrupt_says_how_to_go_on(scored: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    score = Scorer.score

    def interrupted(scorer: Scorer, number: int, *arguments: object) -> object:
        if number == 1:
            raise KeyboardInterrupt
        return score(scorer, number, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Scorer, "score", interrupted)
    finished = scored("--partition-size", 2)
    assert finished.status == 130
    said = finished.stderr.splitlines()[-2:]
    assert said == [
        f"1 of 3 parts are in {scored.out}; the same call goes on from there",
        "error: interrupted",
    ]
    monkeypatch.setattr(Scorer, "score", score)
    rest = scored("--partition-size", 2, "--json")
    assert (rest.document["parts_written"], rest.document["parts_kept"]) == (2, 1)


def test_again_forgets_what_was_scored(scored: Scored) -> None:
    scored()
    assert "the threshold was 200.0 and is 9.0" in scored("--threshold", 9).sentence
    finished = scored("--threshold", 9, "--again", "--json")
    assert (finished.document["anomalous"], finished.document["parts_kept"]) == (5, 0)


def test_a_pattern_is_scored(scored: Scored) -> None:
    finished = scored("--json", images=scored.images / "*.png")
    assert finished.document["pictures"] == 2


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ("nowhere", "nowhere does not exist. Give --images a folder of pictures"),
        ("*.gif", "*.gif names 0 files and no picture among them"),
    ],
)
def test_an_archive_without_pictures_is_an_error(
    scored: Scored, images: str, sentence: str
) -> None:
    finished = scored(images=scored.images / images)
    assert finished.status == 1
    assert sentence in finished.sentence
    assert not scored.out.exists()


def test_a_target_inside_the_archive_is_an_error(scored: Scored) -> None:
    scored.out = scored.images / "results"
    assert "--out lies inside --images" in scored().sentence
    assert not scored.out.exists()


def test_a_file_as_target_is_an_error(scored: Scored) -> None:
    scored.out.touch()
    assert "is a file, and --out is a folder of Parquet files" in scored().sentence


def test_an_option_of_the_cluster_without_one_is_an_error(scored: Scored) -> None:
    finished = scored("--ray-workers", 2, "--ray-gpus", 0.5)
    assert finished.status == 1
    assert "--ray-workers, --ray-gpus would do nothing without --ray" in finished.sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--ray-gpus", 1.5), "--ray-gpus is 1.5, expected a share of one GPU"),
        (("--ray-gpus", 1, "--provider", "cpu"), "--provider cpu uses no GPU, and --ray-gpus 1"),
        (("--ray-gpus", 0, "--provider", "cuda"), "--provider cuda needs a GPU, and --ray-gpus 0"),
    ],
)
def test_gpus_that_cannot_be_are_an_error(
    scored: Scored, words: tuple[object, ...], sentence: str
) -> None:
    assert sentence in scored("--ray", "local", *words).sentence
    assert not scored.out.exists()


def test_a_plan_and_cuda_get_a_gpu_each() -> None:
    def given(model: str, provider: Provider) -> float | None:
        needs = command._gpu_needs(Path(model), provider)
        cluster = command._cluster("local", None, None, None, needs)
        return cluster and cluster.gpus

    assert given("lamp.trt", Provider.AUTO) == given("lamp.onnx", Provider.CUDA) == 1.0
    assert given("lamp.onnx", Provider.AUTO) == given("lamp.onnx", Provider.CPU) == 0.0


def test_an_option_of_another_engine_is_an_error(scored: Scored) -> None:
    assert "--device would do nothing with lamp.onnx" in scored("--device", 0).sentence


def test_a_file_that_is_no_model_is_an_error(scored: Scored) -> None:
    scored.model = scored.model.with_suffix(".pt")
    assert "no engine runs 'lamp.pt'" in scored().sentence


@pytest.mark.parametrize(
    "words", [("--batch-size", 0), ("--partition-size", 0), ("--thumbnails", 7), ("--ray-cpus", 0)]
)
def test_a_value_outside_its_range_is_a_usage_error(
    scored: Scored, words: tuple[object, ...]
) -> None:
    assert scored(*words).status == 2


def test_without_pyarrow_the_command_to_install_it_is_given(
    scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert scored().sentence.endswith('pip install "patchline[archive]"')
    assert not scored.out.exists()


def test_without_ray_the_command_to_install_it_is_given(
    scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert scored("--ray", "local").sentence.endswith('pip install "patchline[ray]"')


def test_a_target_that_is_whole_needs_no_cluster(scored: Scored) -> None:
    scored()
    finished = scored("--ray", "127.0.0.1:1", "--json")
    assert (finished.status, finished.document["parts_kept"]) == (0, 1)


def test_a_model_that_does_not_open_leaves_no_part(scored: Scored) -> None:
    shutil.copy(scored.model, scored.model.with_name("cap.onnx"))
    scored.model = scored.model.with_name("cap.onnx")
    assert "cap.json is missing" in scored().sentence
    assert not scored.out.exists()
