"""A call for all classes: what is refused at once, and what only one class fails of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from patchline.export.cli import export_fleet as module
from patchline.export.cli.call import Call
from patchline.export.cli.export_fleet import export_fleet
from patchline.export.cli.export_options import RayOptions
from patchline.export.fleet.made_from import file_digests, made_from
from patchline.export.fleet.record import save_record
from patchline.runtime.errors import ConfigurationError

from ..drawn import CLASS_NAME, QUICK, write_good
from .jobs import job_of, output_in

FIELDS = QUICK.model_dump(include={"backbone", "weights", "image_size", "coreset_ratio", "device"})


@pytest.fixture
def data(drawn_data: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn_data, tmp_path / "data")
    write_good(tmp_path / "data" / "lids", 2)
    return tmp_path / "data"


def record(data: Path, name: str, out: Path) -> None:
    """Note a class as made, of the drawn class's files."""
    job, output = job_of(data, name), output_in(out)
    made = made_from(job, output, None)
    files = file_digests([out / f"{CLASS_NAME}.onnx", out / f"{CLASS_NAME}.safetensors"])
    save_record(made.model_copy(update={"files": files}), out)


def test_a_picture_that_cannot_be_read_fails_its_class_alone(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (CLASS_NAME, "lids"):
        record(data, name, model.parent)
    bad = data / "lids" / "000.png"
    given = module.out_of_date

    def out_of_date(job: Any, *rest: Any) -> list[str]:
        if job.pictures.class_name == "lids":
            bad.unlink()  # after it was listed
        return given(job, *rest)

    monkeypatch.setattr(module, "out_of_date", out_of_date)
    made = export_fleet(Call(["all"], data, FIELDS, None, output_in(model.parent)))
    assert (set(made.places), made.failures) == ({CLASS_NAME}, 1)
    said = capsys.readouterr()
    assert f"{CLASS_NAME}: up to date" in said.err
    assert f"error: lids: {bad}: No such file or directory" in said.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("options", "ray", "sentence"),
    [
        ({"track": cast(Any, object())}, RayOptions("auto"), "--track would show"),
        ({}, RayOptions("auto", gpus=1.0), "would lie idle with --device cpu"),
    ],
)
def test_what_a_cluster_cannot_is_refused_where_nothing_is_to_be_made(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    ray: RayOptions,
    sentence: str,
) -> None:
    monkeypatch.setattr(module, "_outdated", lambda *given: [])
    output = output_in(tmp_path / "models", **options)
    with pytest.raises(ConfigurationError, match=sentence):
        export_fleet(Call(["all"], data, FIELDS, None, output, ray=ray))
