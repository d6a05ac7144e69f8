"""When a model is up to date, and what is said where it is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from patchline.export.datasets import picture_digests
from patchline.export.fleet.freshness import out_of_date
from patchline.export.fleet.made_from import file_digests, made_from
from patchline.export.fleet.record import (
    check_names,
    load_record,
    record_path,
    save_record,
)
from patchline.export.precision.again import Job
from patchline.export.state import load_state
from patchline.runtime.contract import load_manifest, manifest_path
from patchline.runtime.errors import ConfigurationError

from ..drawn import CLASS_NAME, write_good
from .jobs import job_of, output_in


@pytest.fixture
def data(drawn_data: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn_data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.pth"
    path.write_bytes(b"weights")
    return path


Reasons = Callable[..., list[str]]


@pytest.fixture
def reasons(data: Path, model: Path, weights: Path) -> Reasons:
    """Why the model would be made again under changed settings; it was recorded before."""
    output, files = output_in(model.parent), [model, model.with_suffix(".safetensors")]
    record = made_from(job_of(data, CLASS_NAME, weights=str(weights)), output, None)
    save_record(record.model_copy(update={"files": file_digests(files)}), model.parent)

    def why(**changes: Any) -> list[str]:
        job = job_of(data, CLASS_NAME, **{"weights": str(weights), **changes})
        return out_of_date(job, output, changes)

    return why


def test_nothing_has_changed(reasons: Reasons) -> None:
    assert reasons() == []
    assert reasons(device="auto", memory_budget_bytes=1 << 30, batch_size=3) == []


def test_settings_are_named(reasons: Reasons) -> None:
    assert reasons(coreset_ratio=0.02, score="distance") == [
        "coreset_ratio was 0.4, is 0.02",
        "score was noise-response, is distance",
    ]


def test_weights_count_by_their_content(reasons: Reasons, weights: Path) -> None:
    moved = weights.rename(weights.with_name("other.pth"))
    assert reasons(weights=str(moved)) == []
    assert reasons() == [f"the weights file {weights} is not there"]
    moved.write_bytes(b"others")
    assert reasons(weights=str(moved)) == [f"the weights were others than {moved}"]
    assert reasons(weights=None) == ["the weights were others than those of the hub"]


def test_pictures_are_counted(reasons: Reasons, data: Path) -> None:
    folder = data / CLASS_NAME / "train" / "good"
    (folder / "000.png").rename(folder / "renamed.png")
    assert reasons() == []
    write_good(folder / "more", 2, first_seed=700)
    for path in sorted((folder / "more").iterdir()):
        path.rename(folder / f"more-{path.name}")
    assert reasons() == ["2 pictures more"]
    (folder / "001.png").unlink()
    assert reasons() == ["2 pictures more", "1 picture gone"]


@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_files_are_looked_at(reasons: Reasons, model: Path, ending: str) -> None:
    path = model.with_suffix(f".{ending}")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"!")
    assert reasons() == [f"{path.name} was changed"]
    path.unlink()
    assert reasons() == [f"{path.name} is not there"]


def test_a_later_threshold_is_the_owners(reasons: Reasons, model: Path) -> None:
    path = manifest_path(model)
    manifest = load_manifest(path)
    threshold = manifest.threshold.model_copy(update={"value": 9.0})
    manifest.model_copy(update={"threshold": threshold}).save(path)
    assert reasons() == []
    path.unlink()
    assert len(reasons()) == 1
    assert "gasket.json is missing" in reasons()[0]


def test_a_manifest_of_another_export_is_not_the_models(reasons: Reasons, model: Path) -> None:
    path = manifest_path(model)
    manifest = load_manifest(path)
    assert manifest.onnx is not None
    for onnx in (manifest.onnx.model_copy(update={"sha256": "0" * 64}), None):
        manifest.model_copy(update={"onnx": onnx}).save(path)
        assert reasons() == ["gasket.json is of another file than gasket.onnx"]


def test_a_picture_that_does_not_open(data: Path, tmp_path: Path) -> None:
    """It is an error, and left out where such are; then it is new once it opens."""
    output = output_in(tmp_path)
    job = job_of(data, CLASS_NAME)
    lenient = job_of(data, CLASS_NAME, skip_unreadable=True)
    path = job.pictures.paths[3]
    path.rename(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError):
        made_from(job, output, None)
    record = made_from(lenient, output, None)
    assert len(record.pictures) == len(job.pictures.paths) - 1
    save_record(record, tmp_path)
    with pytest.raises(FileNotFoundError):
        out_of_date(job, output, ())
    assert "1 picture more" not in out_of_date(lenient, output, ())
    (tmp_path / "gone.png").rename(path)
    assert "1 picture more" in out_of_date(lenient, output, ())


def test_another_patchline_and_no_record(reasons: Reasons, model: Path) -> None:
    path = record_path(model.parent, CLASS_NAME)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "patchline": "0.0.1"}))
    assert reasons()[0].startswith("Patchline was 0.0.1, is ")
    path.write_text(json.dumps({**record, "format": 2}))
    assert "no record of this Patchline's" in reasons()[0]
    path.write_text(json.dumps({**record, "class_name": "lids"}))
    assert "of the class lids" in reasons()[0]
    path.unlink()
    assert reasons() == ["it is not there, or not known what it was made from"]


def test_pictures_that_were_added_later(reasons: Reasons, data: Path, model: Path) -> None:
    """They may lie beside the others now, and are not forgotten where the others change."""
    record = load_record(model.parent, CLASS_NAME)
    assert record is not None
    new = tuple(write_good(data / "new", 2, first_seed=800))
    save_record(record.model_copy(update={"added": picture_digests(new)}), model.parent)
    assert reasons() == []
    folder = data / CLASS_NAME / "train" / "good"
    new[0].rename(folder / "new.png")
    assert reasons() == []
    (folder / "000.png").unlink()
    assert reasons() == [
        "1 picture gone",
        "and 1 picture of --extend will not be in it again",
    ]


def test_what_an_extended_model_was_made_from(reasons: Reasons, data: Path, model: Path) -> None:
    before = load_record(model.parent, CLASS_NAME)
    assert before is not None
    write_good(data / "new", 2, first_seed=800)
    base = load_state(model.with_suffix(".safetensors"))
    job = job_of(data, "new", false_alarm_rate=0.2)
    named = Job(
        type(job.pictures)(CLASS_NAME, job.pictures.folder, job.pictures.paths), job.settings
    )
    record = made_from(named, output_in(model.parent), base)
    assert (record.pictures, record.added) == (
        before.pictures,
        picture_digests(job.pictures.paths),
    )
    assert record.settings["false_alarm_rate"] == 0.05  # the call's, not a calibration's
    record_path(model.parent, CLASS_NAME).unlink()
    assert made_from(named, output_in(model.parent), base).pictures == base.pictures


def test_what_a_model_made_again_was_made_from(data: Path, model: Path) -> None:
    state = load_state(model.with_suffix(".safetensors"))
    folder = data / CLASS_NAME / "train" / "good"
    (folder / "000.png").rename(data / "gone.png")
    write_good(folder, 1, first_seed=900)  # one that the state does not know
    job = job_of(data, CLASS_NAME)
    again = Job(job.pictures, job.settings, state)
    output = output_in(model.parent / "new", state=model.parent)
    record = made_from(again, output, None)
    assert sorted(record.pictures + record.added) == sorted(state.pictures)
    assert record.added == picture_digests((data / "gone.png",))
    (model.parent / "new").mkdir()
    save_record(record, output.folder)
    shutil.copy(model, output.folder)
    shutil.copy(manifest_path(model), output.folder)
    assert out_of_date(again, output, ()) == []
    with model.with_suffix(".safetensors").open("ab") as file:
        file.write(b"!")
    assert out_of_date(again, output, ()) == [f"the state in {model.parent} is another"]


def test_the_digest_of_a_bank_leaves_its_manifest_out(tmp_path: Path) -> None:
    import numpy as np

    tensors = {"memory_bank": np.ones((2, 3), np.float32)}
    found = []
    for number, (name, threshold) in enumerate([("a", "1"), ("a", "2"), ("b", "2")]):
        values = {"memory_bank": tensors["memory_bank"] + (name == "b")}
        path = tmp_path / f"{number}.bank"
        path.write_bytes(safetensors.numpy.save(values, {"manifest": threshold}))
        found.append(file_digests([path])[path.name])
    assert found[0] == found[1] != found[2]


def test_a_class_whose_files_would_be_anothers() -> None:
    check_names(["bottle", "job"])
    with pytest.raises(ConfigurationError, match=r"a class is called bottle\.job"):
        check_names(["bottle", "bottle.job"])
