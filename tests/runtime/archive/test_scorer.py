"""The rows of a dataset: scores as everywhere, boxes, thumbnails, and pictures without a score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas
import pyarrow.dataset
import pyarrow.parquet
import pytest

from patchline.calibration.judge import judge_pictures
from patchline.runtime.archive.part_file import part_name, part_schema, read_result
from patchline.runtime.archive.scorer import ScoreJob, Scorer
from patchline.runtime.archive.thumbnail import thumbnail
from patchline.runtime.contract import manifest_path
from patchline.runtime.decisions.regions import find_regions
from patchline.runtime.engine import Prediction, open_engine
from patchline.runtime.errors import DataError, EngineError, ModelError
from patchline.runtime.preprocess import Frame
from tests.runtime.fakes import FakeEngine, gray
from tests.runtime.tiny_model import (
    THRESHOLD,
    make_manifest,
    write_manifest,
    write_tiny_bank,
    write_tiny_graph,
)

from .given import make_job, rows_of, score

NAMES = ["1.png", "2.jpg", "10.png", "late/1.png", "late/2.bmp"]


def test_scores_are_those_of_evaluation(tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 250, (97, 61, 3)).astype(np.uint8)
    assert cv2.imwrite(str(pictures / "11.png"), noisy)
    score(make_job(tiny_model, pictures, tmp_path / "out", partition_size=2), pictures)
    rows = rows_of(tmp_path / "out")
    paths = [pictures / row["path"] for row in rows]
    with open_engine(tiny_model, threads=1) as engine:
        judged = list(judge_pictures(engine, paths))
    assert [row["score"] for row in rows] == [one.score for one in judged]
    assert [row["boxes"] for row in rows] == [
        [
            {"x": at.x, "y": at.y, "width": at.width, "height": at.height, "score": at.peak}
            for at in find_regions(one.anomaly_map, THRESHOLD, (row["height"], row["width"]))
        ]
        for one, row in zip(judged, rows, strict=True)
    ]


def test_rows_have_the_fixed_columns_in_the_order_of_the_listing(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    score(make_job(tiny_model, pictures, out, partition_size=2), pictures)
    data = pyarrow.dataset.dataset(out)
    assert data.schema.remove_metadata() == part_schema()
    assert data.schema.metadata[b"patchline.class"] == b"lamp"
    assert data.schema.metadata[b"patchline.score"] == b"brightness"
    assert len(data.schema.metadata[b"patchline.model_sha256"]) == 64
    frame = pandas.read_parquet(out)
    assert list(frame["path"]) == NAMES
    assert list(frame["verdict"]) == ["good"] * 4 + ["anomalous"]
    assert (frame["threshold"] == THRESHOLD).all()
    assert frame["error"].isna().all()
    assert frame["thumbnail"].isna().all()
    assert ((frame["score"] >= frame["threshold"]) == (frame["verdict"] == "anomalous")).all()
    footer = pyarrow.parquet.ParquetFile(out / part_name(0)).metadata
    assert footer.row_group(0).column(0).compression == "ZSTD"


def test_boxes_are_in_pixels_of_the_picture(tiny_model: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    picture = gray(0, 320, 640)
    picture[100:140, 400:480] = 255
    assert cv2.imwrite(str(images / "spot.png"), picture)
    score(make_job(tiny_model, images, tmp_path / "out"), images)
    (row,) = rows_of(tmp_path / "out")
    assert (row["width"], row["height"], row["score"]) == (640, 320, 255.0)
    # Model pixels are 20 x 10 of the picture's.
    assert row["boxes"] == [{"x": 400, "y": 100, "width": 80, "height": 40, "score": 255.0}]


def test_boxes_are_left_out_where_nobody_asks(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    score(make_job(tiny_model, pictures, tmp_path / "out", has_boxes=False), pictures)
    assert [row["boxes"] for row in rows_of(tmp_path / "out")] == [None] * 5


def test_a_given_threshold_decides_and_moves_the_boxes_along(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    score(make_job(tiny_model, pictures, tmp_path / "out", threshold=25.0), pictures)
    rows = rows_of(tmp_path / "out")
    assert [row["verdict"] for row in rows] == ["good"] * 2 + ["anomalous"] * 3
    assert [len(row["boxes"]) for row in rows] == [0, 0, 1, 1, 1]
    assert {row["threshold"] for row in rows} == {25.0}


def test_a_thumbnail_is_the_map_with_the_sides_of_the_picture(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    score(make_job(tiny_model, pictures, tmp_path / "out", thumbnails_px=16), pictures)
    shown = [
        cv2.imdecode(np.frombuffer(row["thumbnail"], np.uint8), cv2.IMREAD_UNCHANGED)
        for row in rows_of(tmp_path / "out")
    ]
    assert {image.shape for image in shown if image is not None} == {(12, 16)}
    # The map's threshold is 128: brightness 10 of 200, and 250 of 200.
    assert [int(image.max()) for image in shown if image is not None][::4] == [6, 160]


@pytest.mark.parametrize("map_value", [0.1, 0.7, 3.3, 200.0])
def test_the_threshold_of_the_map_is_shade_128(map_value: float) -> None:
    flat = np.full((32, 32), map_value, np.float32)
    png = np.frombuffer(thumbnail(np.nextafter(flat, np.float32(0)), map_value, (48, 64), 16), "u1")
    assert (cv2.imdecode(png, cv2.IMREAD_UNCHANGED) == 128).all()


def test_pictures_without_a_score_are_rows_and_the_rest_is_scored(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "2.jpg").write_bytes(b"no picture")
    whole = (pictures / "10.png").read_bytes()
    (pictures / "10.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "late/1.png").unlink()
    (pictures / "late/1.png").symlink_to("nowhere.png")
    out = tmp_path / "out"
    result = score(make_job(tiny_model, pictures, out, batch_size=2), pictures)
    rows = rows_of(out)
    assert [row["error"] for row in rows] == [
        None,
        "cannot read 2.jpg: not a picture, or damaged",
        "cannot read 10.png: the file is truncated",
        "cannot read late/1.png: No such file or directory",
        None,
    ]
    others = ("score", "verdict", "boxes", "width", "height", "thumbnail")
    assert {row[name] for row in rows[1:4] for name in others} == {None}
    assert [row["score"] for row in rows[::4]] == [10.0, 250.0]
    assert (result.pictures, result.anomalous, result.unreadable) == (5, 1, 3)
    assert result.errors == tuple(row["error"] for row in rows[1:4])


class Broken(FakeEngine):
    """Gives NaN for what is brighter than a half."""

    def infer(self, frames: Frame) -> Prediction:
        found = super().infer(frames)
        found.image_score[found.image_score > 128] = np.nan
        return found


def test_a_score_that_is_no_number_is_a_row_with_an_error(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    job = make_job(tiny_model, pictures, tmp_path / "out", open_engine=Broken)
    result = score(job, pictures)
    row = rows_of(tmp_path / "out")[-1]
    assert row["error"] == "the model gave NaN or infinity for late/2.bmp"
    assert (row["score"], row["verdict"], row["width"]) == (None, None, 64)
    assert (result.not_finite, result.unreadable, result.without_score) == (1, 0, 1)


class Counting(FakeEngine):
    """Remembers how many frames each call had."""

    calls: list[int]

    def infer(self, frames: Frame) -> Prediction:
        self.calls.append(len(frames))
        return super().infer(frames)


def test_batches_are_cut_from_the_part_and_unreadable_pictures_are_left_out(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "2.jpg").write_bytes(b"")
    engine = Counting()
    engine.calls = []
    job = make_job(
        tiny_model,
        pictures,
        tmp_path / "out",
        open_engine=lambda: engine,
        batch_size=2,
        partition_size=4,
    )
    score(job, pictures)
    assert engine.calls == [1, 2, 1]
    assert [row["score"] for row in rows_of(job.out)] == [10.0, None, 30.0, 40.0, 250.0]


def test_a_bank_of_its_own_decides(pictures: Path, tmp_path: Path) -> None:
    graph, bank = write_tiny_graph(tmp_path), write_tiny_bank(tmp_path / "cap.bank", 5.0, 100.0)
    job = make_job(graph, pictures, tmp_path / "out", bank=bank)
    score(job, pictures)
    rows = rows_of(job.out)
    assert [row["score"] for row in rows] == [5.0, 15.0, 25.0, 35.0, 245.0]
    assert {row["threshold"] for row in rows} == {100.0}
    assert (job.settings.class_name, len(job.settings.bank_sha256 or "")) == ("cap", 64)


def test_a_worker_with_another_model_is_refused(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    job = make_job(tiny_model, pictures, tmp_path / "out")
    tiny_model.write_bytes(tiny_model.read_bytes() + b"\0")
    write_manifest(tiny_model, make_manifest())
    with pytest.raises(ModelError, match=r"lamp\.onnx on \S+ has the digest .*Put the same file"):
        Scorer(job).score(0, NAMES)


def test_an_engine_that_fails_leaves_no_part(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    class Failing(FakeEngine):
        def infer(self, frames: Frame) -> Prediction:
            raise EngineError("no more memory")

    job = make_job(tiny_model, pictures, tmp_path / "out", open_engine=Failing)
    with pytest.raises(EngineError, match="no more memory"):
        score(job, pictures)
    assert list(job.out.glob("part-*")) == []


def test_the_engine_is_opened_once_and_closed(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    opened: list[FakeEngine] = []

    def open_one() -> FakeEngine:
        opened.append(FakeEngine())
        return opened[-1]

    score(
        make_job(tiny_model, pictures, tmp_path / "out", open_engine=open_one, partition_size=1),
        pictures,
    )
    (engine,) = opened
    with pytest.raises(EngineError, match="closed"):
        engine.infer(gray(1, 32, 32)[None])


class TestReadResult:
    """A part that lies there is looked at before it is taken for done."""

    @pytest.fixture
    def job(self, tiny_model: Path, pictures: Path, tmp_path: Path) -> ScoreJob:
        job = make_job(tiny_model, pictures, tmp_path / "out")
        score(job, pictures)
        return job

    def test_a_part_tells_what_came_of_it(self, job: ScoreJob) -> None:
        result = read_result(job.out / part_name(0), job.settings, 5)
        assert (result.number, result.pictures, result.anomalous) == (0, 5, 1)
        assert result.engine.startswith("ONNX Runtime")

    @pytest.mark.parametrize("damage", [b"", b"no parquet", None])
    def test_a_damaged_one_is_refused(self, job: ScoreJob, damage: bytes | None) -> None:
        part = job.out / part_name(0)
        part.write_bytes(part.read_bytes()[:-9] if damage is None else damage)
        with pytest.raises(DataError, match="is damaged or no part of this target"):
            read_result(part, job.settings, 5)

    def test_one_of_others_is_refused(self, job: ScoreJob) -> None:
        part = job.out / part_name(0)
        pandas.DataFrame({"path": ["1.png"]}).to_parquet(part)
        with pytest.raises(DataError, match="is damaged or no part of this target"):
            read_result(part, job.settings, 5)

    @pytest.mark.parametrize(("changes", "expected"), [({"threshold": 1.0}, 5), ({}, 4)])
    def test_one_of_another_call_is_refused(
        self, job: ScoreJob, changes: dict[str, Any], expected: int
    ) -> None:
        settings = job.settings.model_copy(update=changes)
        with pytest.raises(DataError, match=f"5 rows for {expected} pictures, or was scored"):
            read_result(job.out / part_name(0), settings, expected)


def test_a_model_without_a_digest_is_refused(
    tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    manifest_path(tiny_model).write_text(make_manifest().to_json())
    with pytest.raises(ModelError, match="onnx: the field is missing"):
        make_job(tiny_model, pictures, tmp_path / "out")
