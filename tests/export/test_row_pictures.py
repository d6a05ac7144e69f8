"""Every row of a bank says the picture it came from: after a fit, an extension, from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patchline.export.datasets import picture_digests
from patchline.export.exporter import export_model
from patchline.export.extend import pictures_to_add, settings_of
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel, fit
from patchline.export.state import TrainingState, load_state, save_state, state_path
from patchline.runtime.errors import ModelError
from patchline.runtime.progress import SilentSteps

from .drawn import QUICK, quick_fit, refuse, settings_with, write_good


def check(fitted: FittedModel, paths: tuple[Path, ...]) -> None:
    """Look for each row of the bank in all pictures: it is in the one that it says it came from.

    Drawn parts share patches of their background, so a row may be in others as well.
    """
    with torch.inference_mode():
        pictures = [
            fitted.detector.embedder(
                torch.from_numpy(read_frames((path,), QUICK.model_size))
            ).flatten(0, 2)
            for path in paths
        ]
    distances = torch.stack([_distances(fitted.memory_bank, rows) for rows in pictures])
    stated = torch.tensor(rows_of(fitted))
    rounding = 1e-4 * fitted.memory_bank.norm(dim=1)
    assert (distances[stated, torch.arange(len(stated))] < rounding).all()
    only_there = (distances < rounding).sum(0) == 1
    assert only_there.sum() > len(stated) / 4
    assert torch.equal(distances.argmin(0)[only_there], stated[only_there])


def _distances(rows: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return (rows.unsqueeze(1) - others).norm(dim=2).amin(1)


def rows_of(fitted: FittedModel) -> list[int]:
    assert fitted.row_pictures is not None
    assert fitted.row_pictures.dtype == torch.int32
    return fitted.row_pictures.tolist()


@pytest.fixture(scope="module")
def base(exported: Path) -> TrainingState:
    return load_state(state_path(exported))


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("more")
    write_good(folder, 3, first_seed=4000)
    return folder


def test_of_a_fit(fitted: FittedModel) -> None:
    check(fitted, fitted.pictures.paths)
    assert set(rows_of(fitted)) == set(range(12))
    assert fitted.picture_digests == picture_digests(fitted.pictures.paths)


def test_of_a_fit_with_pictures_kept_out(drawn_data: Path) -> None:
    split = quick_fit(drawn_data, calibration_split=0.25)
    check(split, split.pictures.paths)
    assert len(set(rows_of(split))) == 9  # of 12, three are in no row


def test_of_an_extension(fitted: FittedModel, base: TrainingState, added: Path) -> None:
    pictures, _ = pictures_to_add(added, base)
    grown = fit(pictures, settings_of(base, {"device": "cpu"}), SilentSteps(), refuse, base)
    both = (*fitted.pictures.paths, *pictures.paths)
    check(grown, both)
    assert set(rows_of(grown)) == set(range(12 + 3))
    assert grown.picture_digests == picture_digests(both)


def test_an_older_model_stays_silent_when_it_is_extended(base: TrainingState, added: Path) -> None:
    older = replace(base, row_pictures=None)
    pictures, _ = pictures_to_add(added, older)
    grown = fit(pictures, settings_of(older, {"device": "cpu"}), SilentSteps(), refuse, older)
    assert grown.row_pictures is None


@pytest.mark.parametrize("bank", ["embedded", "external"])
def test_the_file_keeps_it(fitted: FittedModel, tmp_path: Path, bank: str) -> None:
    path = export_model(fitted, settings_with(bank=bank), tmp_path, SilentSteps())
    found = load_state(state_path(path)).row_pictures
    assert found is not None and found.tolist() == rows_of(fitted)


def test_a_file_without_it_is_read(base: TrainingState, tmp_path: Path) -> None:
    path = tmp_path / "older.safetensors"
    save_state(replace(base, row_pictures=None), path)
    assert load_state(path).row_pictures is None


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (torch.zeros(3, dtype=torch.int32), r"row_pictures of torch.int32 \(3,\), expected int32"),
        (torch.zeros(307, dtype=torch.int64), "row_pictures of torch.int64"),
        (torch.full((307,), 12, dtype=torch.int32), "row_pictures beyond its 12 pictures"),
        (torch.full((307,), -1, dtype=torch.int32), "row_pictures beyond its 12 pictures"),
    ],
)
def test_a_file_that_contradicts_itself(
    base: TrainingState, tmp_path: Path, rows: torch.Tensor, says: str
) -> None:
    path = tmp_path / "bad.safetensors"
    save_state(replace(base, row_pictures=rows), path)
    with pytest.raises(ModelError, match=says):
        load_state(path)
