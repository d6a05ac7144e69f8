"""Pictures -> patch embeddings: order, values, and pictures that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchline.export.backbone import PatchEmbedder
from patchline.export.coreset import random_projection
from patchline.export.datasets import good_pictures
from patchline.export.features import TrainingFeatures, extract_features, read_frames
from patchline.export.fit import FittedModel
from patchline.runtime.errors import DataError, ImageReadError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import resize

from .drawn import CLASS_NAME, QUICK, write_good, write_modes, write_picture

PATCHES = 64


@pytest.fixture(scope="module")
def embedder() -> PatchEmbedder:
    return PatchEmbedder("resnet18", QUICK.model_size, "random")


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, ...]:
    """Seven pictures: two batches of three and one of one."""
    return tuple(write_good(tmp_path / "good", 7))


def extract(paths: tuple[Path, ...], embedder: PatchEmbedder, **changes: Any) -> TrainingFeatures:
    options: dict[str, Any] = {
        "batch_size": 3,
        "seed": 0,
        "spill": None,
        "on_unreadable": None,
        "advance": lambda done: None,
    }
    return extract_features(paths, embedder, **(options | changes))


def break_file(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:200])
    return path


class TestExtraction:
    def test_it_is_a_plain_loop_over_the_pictures(
        self, paths: tuple[Path, ...], embedder: PatchEmbedder
    ) -> None:
        with torch.inference_mode():
            one_by_one = [
                embedder(torch.from_numpy(resize(read_image(path), QUICK.model_size))[None])
                for path in paths
            ]
        expected = torch.cat(one_by_one).reshape(7 * PATCHES, 384)
        found = extract(paths, embedder)
        assert found.paths == paths
        assert found.patches == PATCHES
        assert len(found.rows) == 7 * PATCHES
        assert torch.allclose(found.rows.read(0, 7 * PATCHES), expected, atol=1e-5)
        matrix = random_projection(384, 0)
        assert matrix is not None
        assert torch.allclose(found.projections, expected @ matrix, atol=1e-5)

    def test_images_are_found_by_number(
        self, paths: tuple[Path, ...], embedder: PatchEmbedder
    ) -> None:
        found = extract(paths, embedder)
        whole = found.rows.read(0, 7 * PATCHES)
        assert torch.equal(found.images(2, 4), whole[2 * PATCHES : 4 * PATCHES])

    @pytest.mark.parametrize("batch_size", [1, 7, 50])
    def test_the_batch_size_changes_nothing(
        self, paths: tuple[Path, ...], embedder: PatchEmbedder, batch_size: int
    ) -> None:
        expected = extract(paths, embedder).rows.read(0, 7 * PATCHES)
        found = extract(paths, embedder, batch_size=batch_size)
        assert torch.allclose(found.rows.read(0, 7 * PATCHES), expected, atol=1e-5)

    def test_rows_on_disk_are_the_rows_in_memory(
        self, paths: tuple[Path, ...], embedder: PatchEmbedder, tmp_path: Path
    ) -> None:
        memory, disk = extract(paths, embedder), extract(paths, embedder, spill=tmp_path)
        try:
            assert disk.rows.on_disk and not memory.rows.on_disk
            assert torch.equal(disk.projections, memory.projections)
            assert torch.equal(disk.images(0, 7), memory.images(0, 7))
        finally:
            disk.rows.close()

    def test_another_seed_gives_another_projection(
        self, paths: tuple[Path, ...], embedder: PatchEmbedder
    ) -> None:
        first, other = extract(paths, embedder), extract(paths, embedder, seed=1)
        assert torch.equal(first.rows.read(0, 9), other.rows.read(0, 9))
        assert not torch.allclose(first.projections, other.projections)

    def test_progress_counts_pictures(
        self, paths: tuple[Path, ...], embedder: PatchEmbedder
    ) -> None:
        told: list[int] = []
        extract(paths, embedder, advance=told.append)
        assert told == [3, 6, 7]


class TestUnreadable:
    def test_the_first_one_is_an_error_that_names_it_and_the_flag(
        self, paths: tuple[Path, ...], embedder: PatchEmbedder
    ) -> None:
        break_file(paths[4])
        with pytest.raises(ImageReadError, match=r"004.png.*truncated.*--skip-unreadable"):
            extract(paths, embedder)

    def test_it_is_one_on_disk_too_and_the_file_is_given_back(
        self, paths: tuple[Path, ...], embedder: PatchEmbedder, tmp_path: Path
    ) -> None:
        # An open temporary file would be a ResourceWarning, and so a failure.
        break_file(paths[4])
        with pytest.raises(ImageReadError):
            extract(paths, embedder, spill=tmp_path)

    @pytest.mark.parametrize("broken", [[0], [4], [6], [3, 4, 5], [0, 1, 2, 3, 4, 5]])
    def test_with_leave_they_are_left_out_and_the_rest_stays_in_order(
        self, paths: tuple[Path, ...], embedder: PatchEmbedder, broken: list[int]
    ) -> None:
        whole = extract(paths, embedder)
        told: list[ImageReadError] = []
        for index in broken:
            break_file(paths[index])
        found = extract(paths, embedder, on_unreadable=told.append)
        kept = [index for index in range(7) if index not in broken]
        assert found.paths == tuple(paths[index] for index in kept)
        assert len(found.rows) == len(found.projections) == len(kept) * PATCHES
        for at, index in enumerate(kept):
            expected = whole.images(index, index + 1)
            assert torch.allclose(found.images(at, at + 1), expected, atol=1e-5)
        assert [paths.index(Path(str(e).split(":")[0].split()[-1])) for e in told] == broken

    def test_none_that_can_be_read(self, paths: tuple[Path, ...], embedder: PatchEmbedder) -> None:
        for path in paths:
            path.write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"none of the 7 pictures in .*good can be read"):
            extract(paths, embedder, on_unreadable=lambda error: None)


def test_every_mode_of_one_picture_is_the_same_frame(tmp_path: Path) -> None:
    paths = write_modes(tmp_path)
    frames = read_frames(tuple(paths.values()), QUICK.model_size)
    assert frames.dtype == np.uint8 and frames.shape == (len(paths), 64, 64, 3)
    for name, frame in zip(paths, frames, strict=True):
        assert np.array_equal(frame, frames[0]), name


def test_sizes_and_modes_mix_in_one_batch(tmp_path: Path, embedder: PatchEmbedder) -> None:
    small = write_good(tmp_path / "small", 1, side_px=64)[0]
    wide = write_picture(tmp_path / "wide.png", np.zeros((70, 300, 3), np.uint8))
    paths = (*write_modes(tmp_path / "modes").values(), small, wide)
    found = extract(paths, embedder, batch_size=50)
    assert len(found.rows) == len(paths) * PATCHES
    assert torch.allclose(found.images(0, 1), found.images(3, 4), atol=1e-5)


def test_features_that_are_no_numbers_name_the_picture(
    drawn_data: Path, fitted: FittedModel
) -> None:
    paths = good_pictures(drawn_data, CLASS_NAME).paths
    calls = []

    class Overflowing(torch.nn.Module):
        """The embedder, whose second batch of eight overflows in its third picture."""

        grid, size, dimension = (8, 8), fitted.detector.embedder.size, 384

        def __init__(self) -> None:
            super().__init__()
            self.network = fitted.detector.embedder.network

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            calls.append(len(frames))
            rows = torch.zeros(len(frames), 8, 8, 384)
            if len(calls) == 2:
                rows[2, 1, 1, 1] = torch.inf
            return rows

    with pytest.raises(DataError, match=r"infinite features for .*010\.png"):
        extract_features(
            paths,
            Overflowing(),  # type: ignore[arg-type]
            batch_size=8,
            seed=0,
        )
