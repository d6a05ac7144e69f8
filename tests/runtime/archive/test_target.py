"""A target that is gone on with: what stays, what is scored, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest

from patchline.runtime.archive.listing import list_archive
from patchline.runtime.archive.part_file import part_name
from patchline.runtime.archive.record import RECORD
from patchline.runtime.archive.scorer import ScoreJob
from patchline.runtime.archive.target import Target, check_apart
from patchline.runtime.engine import Prediction
from patchline.runtime.errors import ConfigurationError, DataError, EngineError, WriteError
from patchline.runtime.preprocess import Frame
from tests.runtime.fakes import FakeEngine, gray
from tests.runtime.tiny_model import make_manifest, write_manifest

from .given import make_job, rows_of, score

ALL = ["1.png", "2.jpg", "10.png", "late/1.png", "late/2.bmp"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results.parquet"


@pytest.fixture
def job(tiny_model: Path, pictures: Path, out: Path) -> ScoreJob:
    return make_job(tiny_model, pictures, out, partition_size=2)


def paths(out: Path) -> list[str]:
    return [row["path"] for row in rows_of(out)]


def times(out: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in out.glob("part-*")}


def test_a_second_call_scores_nothing(job: ScoreJob, pictures: Path, out: Path) -> None:
    first = score(job, pictures)
    written = times(out)
    second = score(job, pictures)
    assert times(out) == written
    assert (first.parts_written, first.parts_kept, first.pictures_scored) == (3, 0, 5)
    assert (second.parts_written, second.parts_kept, second.pictures_scored) == (0, 3, 0)
    assert (second.pictures, second.anomalous) == (first.pictures, first.anomalous) == (5, 1)
    assert second.pictures_per_second is None


def test_only_a_missing_part_is_scored_again(job: ScoreJob, pictures: Path, out: Path) -> None:
    score(job, pictures)
    rows, written = rows_of(out), times(out)
    (out / part_name(1)).unlink()
    result = score(job, pictures)
    assert rows_of(out) == rows
    assert (result.parts_written, result.parts_kept, result.pictures_scored) == (1, 2, 2)
    assert {name for name in written if times(out)[name] == written[name]} == {
        part_name(0),
        part_name(2),
    }


def test_what_was_done_before_a_failure_stays(tiny_model: Path, pictures: Path, out: Path) -> None:
    class Failing(FakeEngine):
        def infer(self, frames: Frame) -> Prediction:
            if frames.max() > 200:
                raise EngineError("no more memory")
            return super().infer(frames)

    with pytest.raises(EngineError):
        score(make_job(tiny_model, pictures, out, partition_size=2, open_engine=Failing), pictures)
    assert paths(out) == ALL[:4]
    result = score(make_job(tiny_model, pictures, out, partition_size=2), pictures)
    assert paths(out) == ALL
    assert (result.parts_written, result.parts_kept) == (1, 2)


def test_new_pictures_go_into_new_parts(job: ScoreJob, pictures: Path, out: Path) -> None:
    score(job, pictures)
    written = times(out)
    assert cv2.imwrite(str(pictures / "0.png"), gray(220))
    result = score(job, pictures)
    assert paths(out) == [*ALL, "0.png"]
    assert times(out).items() >= written.items()
    assert (result.pictures, result.anomalous, result.parts_written) == (6, 2, 1)
    assert score(job, pictures).parts_written == 0


def test_an_archive_that_lost_pictures_is_refused(job: ScoreJob, pictures: Path, out: Path) -> None:
    score(job, pictures)
    (pictures / "2.jpg").unlink()
    os.utime(pictures / "10.png", ns=(1, 1))
    with pytest.raises(DataError, match=r"1 is gone \(2\.jpg\) and 1 is changed \(10\.png\)"):
        score(job, pictures)
    assert paths(out) == ALL
    score(job, pictures, again=True)
    assert paths(out) == ["1.png", "10.png", "late/1.png", "late/2.bmp"]


def test_an_archive_at_another_place_is_the_same(
    tiny_model: Path, job: ScoreJob, pictures: Path, out: Path, tmp_path: Path
) -> None:
    score(job, pictures)
    moved = tmp_path / "mounted elsewhere"
    shutil.move(pictures, moved)
    assert score(make_job(tiny_model, moved, out, partition_size=2), moved).parts_written == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": 9.0}, r"the threshold was 200\.0 and is 9\.0"),
        ({"has_boxes": False}, r"--boxes was on and is off"),
        ({"thumbnails_px": 32}, r"--thumbnails was not given and is 32"),
        ({"batch_size": 4}, r"--batch-size was 1 and is 4"),
        ({"partition_size": 3}, r"--partition-size was 2 and is 3\. .*--again"),
    ],
)
def test_other_settings_are_refused_by_name(
    tiny_model: Path,
    job: ScoreJob,
    pictures: Path,
    out: Path,
    options: dict[str, Any],
    sentence: str,
) -> None:
    score(job, pictures)
    other = make_job(tiny_model, pictures, out, **{"partition_size": 2, **options})
    with pytest.raises(ConfigurationError, match=sentence):
        score(other, pictures)
    assert len(rows_of(out)) == 5
    assert score(other, pictures, again=True).parts_kept == 0
    assert score(other, pictures).parts_written == 0


def test_another_model_is_refused_by_its_digest(
    tiny_model: Path, job: ScoreJob, pictures: Path, out: Path
) -> None:
    score(job, pictures)
    tiny_model.write_bytes(tiny_model.read_bytes() + b"\0")
    write_manifest(tiny_model, make_manifest())
    other = make_job(tiny_model, pictures, out, partition_size=2)
    with pytest.raises(
        ConfigurationError, match=r"the digest of --model was \w{12}… and is \w{12}"
    ):
        score(other, pictures)


@pytest.mark.parametrize("damage", ["", "{}", '{"schema_version": 2}', None])
def test_a_damaged_record_is_refused(
    job: ScoreJob, pictures: Path, out: Path, damage: str | None
) -> None:
    score(job, pictures)
    document = json.loads((out / RECORD).read_text())
    document["settings"]["threshold"] = "high"
    (out / RECORD).write_text(json.dumps(document) if damage is None else damage)
    with pytest.raises(DataError, match=r"_patchline\.json is damaged or missing.*--again"):
        score(job, pictures)
    assert score(job, pictures, again=True).parts_written == 3


@pytest.mark.parametrize("how", ["gone", "cut", "other"])
def test_a_damaged_listing_is_refused(job: ScoreJob, pictures: Path, out: Path, how: str) -> None:
    score(job, pictures)
    (listing,) = out.glob("_listing-*.parquet")
    if how == "cut":
        listing.write_bytes(listing.read_bytes()[:-20])
    elif how == "other":
        shutil.copy(out / part_name(0), listing)
    else:
        listing.unlink()
    with pytest.raises(DataError, match=rf"{listing.name} is damaged or missing"):
        score(job, pictures)
    assert score(job, pictures, again=True).parts_written == 3
    assert len(list(out.glob("_listing-*.parquet"))) == 1


def test_a_part_that_nobody_planned_is_refused(job: ScoreJob, pictures: Path, out: Path) -> None:
    score(job, pictures)
    shutil.copy(out / part_name(0), out / part_name(7))
    with pytest.raises(DataError, match=r"part-00007\.parquet is no part of this target"):
        score(job, pictures)


def test_what_a_killed_call_left_is_cleared_away(job: ScoreJob, pictures: Path, out: Path) -> None:
    score(job, pictures)
    (out / ".patchline-abc").mkdir()
    (out / ".patchline-abc" / part_name(9)).write_bytes(b"half a part")
    (out / ".attempt-3-0").touch()
    score(job, pictures)
    hidden = [file.name for file in out.iterdir() if file.name.startswith(".")]
    assert hidden == [".target.lock"]


def test_two_calls_at_once_are_refused(job: ScoreJob, pictures: Path, out: Path) -> None:
    with (
        Target(out).held(),
        pytest.raises(WriteError, match="another score-archive is writing to"),
    ):
        score(job, pictures)
    assert score(job, pictures).parts_written == 3


def test_a_file_as_target_is_refused(job: ScoreJob, pictures: Path, out: Path) -> None:
    out.write_bytes(b"results")
    with pytest.raises(ConfigurationError, match=r"is a file, and --out is a folder"):
        score(job, pictures)
    assert out.read_bytes() == b"results"


@pytest.mark.parametrize("name", ["report.csv", "part-00000.parquet"])
def test_a_folder_of_something_else_is_refused(
    job: ScoreJob, pictures: Path, out: Path, name: str
) -> None:
    out.mkdir()
    (out / name).touch()
    for again in (False, True):
        with pytest.raises(ConfigurationError, match=rf"holds {name} and no _patchline\.json"):
            score(job, pictures, again=again)
    assert [file.name for file in out.iterdir()] == [name]


@pytest.mark.parametrize(
    ("inner", "outer", "sentence"),
    [
        ("archive/out", "archive", "--out lies inside --images"),
        ("archive", "archive", "--out lies inside --images"),
        ("out", "out/archive", "--images lies inside --out"),
    ],
)
def test_a_target_and_an_archive_lie_apart(
    tmp_path: Path, inner: str, outer: str, sentence: str
) -> None:
    (tmp_path / outer).mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=sentence):
        check_apart(tmp_path / inner, tmp_path / outer)
    check_apart(tmp_path / "elsewhere", tmp_path / outer)


def test_the_record_names_what_the_parts_are_made_of(
    job: ScoreJob, pictures: Path, out: Path
) -> None:
    score(job, pictures)
    record = json.loads((out / RECORD).read_text())
    assert record["settings"] == job.settings.model_dump(mode="json")
    assert (record["pictures"], record["parts"], record["images"]) == (5, 3, str(pictures))
    assert (out / record["listing"]).is_file()
    assert set(record["versions"]) == {"patchline"}
    assert len(list_archive(pictures).pictures) == record["pictures"]
