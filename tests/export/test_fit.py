"""The fit: cross-fitted scores against a slow reference, memory, determinism and odd data."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from patchline.calibration.folds import assign_calibration, assign_folds
from patchline.calibration.threshold import caveat, derive_threshold
from patchline.export.coreset import coreset_size, greedy_coreset
from patchline.export.cross_fit import HeadSettings, HeldOut, cross_fit
from patchline.export.datasets import digest_of, good_pictures
from patchline.export.detector import AnomalyHead
from patchline.export.exporter import export_model
from patchline.export.features import TrainingFeatures, extract_features, read_frames
from patchline.export.fit import FittedModel, choose_device, fit
from patchline.export.memory import MemoryPlan, plan_memory
from patchline.export.scores import SCORES
from patchline.runtime.byte_size import parse_bytes
from patchline.runtime.contract import DistanceStatistics, load_manifest, manifest_path
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ConfigurationError, DataError, ImageReadError
from patchline.runtime.progress import SilentSteps
from tests.programs import run_program

from .drawn import (
    CLASS_NAME,
    QUICK,
    quick_fit,
    settings_with,
    write_class,
    write_good,
    write_picture,
)

PATCHES = 64


def plan_of(budget_bytes: int = 1 << 40, images: int = 12, bank_rows: int = 307) -> MemoryPlan:
    """The plan of the quick fit."""
    return plan_memory(
        images=images,
        patches=PATCHES,
        dimension=384,
        bank_rows=bank_rows,
        neighbors=9,
        budget_bytes=budget_bytes,
    )


class TestMemoryPlan:
    def test_all_in_memory_where_there_is_room(self) -> None:
        plan = plan_of()
        assert plan.spill is None
        assert plan.features_bytes == 12 * PATCHES * 384 * 4
        # At least the projections of all rows, the bank and the features.
        assert plan.peak_bytes > plan.features_bytes + 4 * (12 * PATCHES * 128 + 307 * 384)
        assert plan.peak_bytes < 8 << 20

    def test_the_edge_between_memory_and_disk(self) -> None:
        peak = plan_of().peak_bytes
        assert plan_of(peak).spill is None
        below = plan_of(peak - 1)
        assert below.spill is not None and below.spill.is_dir()
        assert below.peak_bytes == peak - below.features_bytes

    def test_the_edge_between_disk_and_too_small(self) -> None:
        least = plan_of().peak_bytes - plan_of().features_bytes
        assert plan_of(least).peak_bytes == least
        with pytest.raises(ConfigurationError) as caught:
            plan_of(least - 1)
        message = str(caught.value)
        assert message.startswith(f"the memory budget is {(least - 1) >> 20} MiB, and 12 images")
        # Rounded up: who gives what is said gets through.
        needed = parse_bytes(message.split(" need ")[1].split(".")[0].replace(" MiB", "MiB"))
        assert plan_of(needed).peak_bytes >= least
        assert "--memory-budget" in message and "--coreset-ratio" in message

    def test_more_images_need_more_on_disk_and_little_more_in_memory(self) -> None:
        few, many = plan_of(images=100), plan_of(images=200)
        assert many.features_bytes == 2 * few.features_bytes
        least = few.peak_bytes - few.features_bytes
        grown = many.peak_bytes - many.features_bytes - least
        assert 0 < grown < 0.5 * few.features_bytes

    def test_a_larger_bank_needs_more(self) -> None:
        assert plan_of(bank_rows=600).peak_bytes > plan_of().peak_bytes + 3 * 293 * 384 * 4

    def test_rows_narrower_than_the_projection_are_held_as_they_are(self) -> None:
        def held(dimension: int) -> int:
            plan = plan_memory(
                images=1000, patches=1, dimension=dimension, bank_rows=1, neighbors=1,
                budget_bytes=1 << 40,
            )  # fmt: skip
            return plan.peak_bytes - plan.features_bytes

        assert held(64) < held(128) - 1000 * 63 * 4

    def test_a_fit_refuses_a_budget_that_is_too_small(self, drawn_data: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"the memory budget is 1 MiB.* need \d MiB"):
            quick_fit(drawn_data, memory_budget_bytes=1 << 20)


class TestSpill:
    def test_a_fit_over_the_disk_is_the_fit_in_memory(
        self, fitted: FittedModel, drawn_data: Path
    ) -> None:
        assert fitted.memory.spill is None
        spilled = quick_fit(drawn_data, memory_budget_bytes=fitted.memory.peak_bytes - 1)
        assert spilled.memory.spill is not None
        assert torch.equal(spilled.memory_bank, fitted.memory_bank)
        assert spilled.threshold == fitted.threshold
        assert spilled.normal == fitted.normal
        assert spilled.statistics == fitted.statistics
        assert spilled.coreset_radius == fitted.coreset_radius

    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux measures it")
    def test_memory_follows_the_budget(self, tmp_path: Path) -> None:
        """A process' peak memory, with the features on disk and then in memory."""
        write_good(tmp_path / CLASS_NAME, 18, side_px=64)
        script = Path(__file__).with_name("peak_memory.py")
        # A fixed threshold: otherwise glibc keeps freed blocks, by rules of its own.
        done = run_program(
            [sys.executable, str(script), str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"},
        )
        found = json.loads(done.stdout)
        features = found["features"]
        assert features == 18 * 1024 * 384 * 4
        # More pictures cost what was planned, with room for the allocator, and not their features.
        assert found["disk_growth"] < found["planned_growth"] + 0.25 * features
        assert found["memory_growth"] > found["disk_growth"] + 0.6 * features


class TestDeterminism:
    def test_the_same_seed_gives_the_same_model(
        self, fitted: FittedModel, drawn_data: Path
    ) -> None:
        again = quick_fit(drawn_data)
        assert torch.equal(again.memory_bank, fitted.memory_bank)
        assert (again.threshold, again.normal) == (fitted.threshold, fitted.normal)
        assert again.training_set == fitted.training_set

    def test_another_seed_gives_another(self, fitted: FittedModel, drawn_data: Path) -> None:
        other = quick_fit(drawn_data, seed=1)
        assert not torch.equal(other.memory_bank, fitted.memory_bank)
        assert other.normal != fitted.normal


class TestResult:
    def test_the_bank_is_the_coreset_of_the_training_rows(
        self, fitted: FittedModel, features: TrainingFeatures
    ) -> None:
        size = coreset_size(12 * PATCHES, QUICK.coreset_ratio)
        coreset = greedy_coreset(features.projections, size, seed=QUICK.seed)
        rows = features.rows.read(0, 12 * PATCHES)
        assert torch.equal(fitted.memory_bank, rows[coreset.indices])
        assert fitted.coreset_radius == coreset.radius
        head = fitted.detector.head
        assert torch.equal(head.search.get_buffer("bank")[: head.search.rows], fitted.memory_bank)

    def test_the_threshold_follows_from_the_held_out_scores(self, fitted: FittedModel) -> None:
        scores = fitted.normal.scores
        assert list(scores) == sorted(scores) and len(scores) == 12
        assert fitted.normal.source == "cross-fit"
        assert fitted.threshold == derive_threshold(fitted.normal, 0.05)
        assert fitted.normal.mean == pytest.approx(np.mean(scores))
        assert fitted.normal.std == pytest.approx(np.std(scores))

    def test_another_rate_moves_nothing_but_the_threshold(
        self, fitted: FittedModel, drawn_data: Path
    ) -> None:
        other = quick_fit(drawn_data, false_alarm_rate=0.2)
        assert other.normal == fitted.normal
        assert other.threshold == derive_threshold(fitted.normal, 0.2)
        assert other.threshold.value < fitted.threshold.value

    def test_the_training_set_is_on_record(self, fitted: FittedModel, drawn_data: Path) -> None:
        paths = good_pictures(drawn_data, CLASS_NAME).paths
        assert fitted.training_set.images == 12
        assert fitted.training_set.skipped_unreadable == 0
        assert fitted.training_set.sha256 == digest_of(paths)
        assert fitted.pictures.paths == paths

    def test_skipped_pictures_are_counted_told_and_not_in_the_digest(
        self, drawn_data: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / CLASS_NAME
        shutil.copytree(drawn_data / CLASS_NAME / "train" / "good", folder)
        for name in ("003.png", "007.png"):
            (folder / name).write_bytes(b"broken")
        told: list[ImageReadError] = []
        pictures = good_pictures(tmp_path, CLASS_NAME)
        fitted = fit(pictures, settings_with(skip_unreadable=True), SilentSteps(), told.append)
        assert (fitted.training_set.images, fitted.training_set.skipped_unreadable) == (10, 2)
        assert len(told) == 2 and "003.png" in str(told[0]) and "007.png" in str(told[1])
        assert fitted.training_set.sha256 == digest_of(fitted.pictures.paths)
        assert len(fitted.memory_bank) == int(10 * PATCHES * 0.4)
        assert len(fitted.normal.scores) == 10
        with pytest.raises(ImageReadError, match=r"003.png"):
            fit(pictures, QUICK, SilentSteps(), told.append)


@pytest.fixture(scope="module")
def split(drawn_data: Path) -> FittedModel:
    """A fit that keeps four of the twelve pictures out of the bank."""
    return quick_fit(drawn_data, calibration_split=0.3)


class TestCalibrationSplit:
    def test_the_held_out_pictures_never_enter_the_bank(
        self, split: FittedModel, features: TrainingFeatures
    ) -> None:
        held_out = assign_calibration(12, 0.3, QUICK.seed)
        rows = features.rows.read(0, 12 * PATCHES).view(12, PATCHES, -1)
        training = rows[torch.from_numpy(~held_out)].flatten(0, 1)
        bank = split.memory_bank
        assert len(bank) == coreset_size(len(training), QUICK.coreset_ratio)
        left = rows[torch.from_numpy(held_out)].flatten(0, 1)
        known = {row.numpy().tobytes() for row in training}
        unknown = {row.numpy().tobytes() for row in left}
        chosen = {row.numpy().tobytes() for row in bank}
        assert chosen <= known and not chosen & unknown

    def test_their_scores_are_those_of_the_model_that_ships(
        self, split: FittedModel, drawn_data: Path
    ) -> None:
        held_out = assign_calibration(12, 0.3, QUICK.seed)
        paths = np.array(good_pictures(drawn_data, CLASS_NAME).paths)[held_out]
        frames = torch.from_numpy(read_frames(tuple(paths), QUICK.model_size))
        score, anomaly_map, _ = split.detector.predict(frames)
        assert split.normal.scores == pytest.approx(sorted(score.tolist()), rel=1e-5)
        maxima = sorted(anomaly_map.amax((1, 2)).tolist())
        assert split.normal.map_maxima == pytest.approx(maxima, rel=1e-5)
        assert split.normal.source == "calibration-split"
        assert split.threshold == derive_threshold(split.normal, 0.05)

    def test_they_are_counted(self, split: FittedModel) -> None:
        assert split.training_set.images == 12
        assert split.training_set.calibration_images == len(split.normal.scores) == 4

    def test_they_have_no_part_in_the_statistics(
        self, split: FittedModel, features: TrainingFeatures
    ) -> None:
        training = ~assign_calibration(12, 0.3, QUICK.seed)
        settings = head_settings(QUICK.score_name, QUICK.coreset_ratio)
        expected = cross_fit(features, settings, SilentSteps(), images=training)
        assert split.statistics == expected.statistics
        assert len(expected.image_scores) == 8

    def test_three_pictures_are_too_few(self, tmp_path: Path) -> None:
        write_good(tmp_path / CLASS_NAME, 3)
        with pytest.raises(DataError, match="at least 4"):
            quick_fit(tmp_path, calibration_split=0.5)


@pytest.fixture(scope="module")
def features(drawn_data: Path, fitted: FittedModel) -> TrainingFeatures:
    return extract_features(
        good_pictures(drawn_data, CLASS_NAME).paths,
        fitted.detector.embedder,
        batch_size=QUICK.batch_size,
        seed=QUICK.seed,
    )


def head_settings(score: str, ratio: float = 0.1) -> HeadSettings:
    return HeadSettings(
        grid=(8, 8),
        size=QUICK.model_size,
        score=score,
        neighbors=9,
        coreset_ratio=ratio,
        seed=0,
        device=torch.device("cpu"),
    )


def slow_cross_fit(features: TrainingFeatures, score: str, ratio: float) -> HeldOut:
    """Fold by fold, with brute force where it can be had."""
    images = len(features.paths)
    rows = features.rows.read(0, images * PATCHES).view(images, PATCHES, -1)
    projections = features.projections.view(images, PATCHES, -1)
    folds = assign_folds(images, 0)
    banks = {}
    means = np.zeros((images, PATCHES))
    for fold in np.unique(folds):
        rest = torch.from_numpy(folds != fold)
        size = coreset_size(int(rest.sum()) * PATCHES, ratio)
        picks = greedy_coreset(projections[rest].flatten(0, 1), size, seed=0).indices
        banks[fold] = rows[rest].flatten(0, 1)[picks]
        for image in np.flatnonzero(folds == fold):
            distances = torch.cdist(rows[image].double(), banks[fold].double())
            means[image] = distances.sort(1).values[:, :9].mean(1).numpy()
    statistics = DistanceStatistics(mean=float(means.mean()), std=float(means.std()))
    scores, maxima = np.zeros(images), np.zeros(images)
    for image in range(images):
        head = AnomalyHead(
            banks[folds[image]], statistics, (8, 8), QUICK.model_size, score=score, neighbors=9
        )
        image_score, anomaly_map, _ = head(rows[image].view(1, 8, 8, -1))
        scores[image], maxima[image] = float(image_score), float(anomaly_map.max())
    return HeldOut(statistics, scores, maxima)


class TestCrossFit:
    @pytest.mark.parametrize("score", sorted(SCORES))
    def test_it_is_the_slow_reference(self, features: TrainingFeatures, score: str) -> None:
        expected = slow_cross_fit(features, score, 0.1)
        found = cross_fit(features, head_settings(score), SilentSteps())
        assert found.statistics.mean == pytest.approx(expected.statistics.mean, rel=1e-5)
        assert found.statistics.std == pytest.approx(expected.statistics.std, rel=1e-4)
        assert found.image_scores == pytest.approx(expected.image_scores, rel=1e-4)
        assert found.map_maxima == pytest.approx(expected.map_maxima, rel=1e-4)
        # A mix-up of images would show: their scores differ.
        assert np.ptp(expected.map_maxima) > 0.02 * expected.map_maxima.max()

    def test_a_score_that_is_no_number_names_the_picture(
        self, features: TrainingFeatures, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge = AnomalyHead.judge

        def broken(head: AnomalyHead, *words: torch.Tensor) -> tuple[torch.Tensor, ...]:
            score, *maps = judge(head, *words)
            same = torch.equal(words[0].flatten(), features.images(5, 6).flatten())
            return (score * torch.nan if same else score, *maps)

        monkeypatch.setattr(AnomalyHead, "judge", broken)
        with pytest.raises(DataError, match=r"held-out score of .*005\.png is nan"):
            cross_fit(features, head_settings("distance"), SilentSteps())

    def test_no_image_is_judged_by_a_bank_that_has_seen_it(
        self, features: TrainingFeatures
    ) -> None:
        # With every patch in the bank, an image that was in it would score nothing at all.
        found = cross_fit(features, head_settings("distance", ratio=1.0), SilentSteps())
        assert found.image_scores.min() > 0.01

    def test_every_image_counts_as_progress_once(self, features: TrainingFeatures) -> None:
        told: dict[str, list[int]] = {}

        class Listening(SilentSteps):
            def step(self, name: str, total: int):  # type: ignore[no-untyped-def]
                import contextlib

                return contextlib.nullcontext(told.setdefault(name, [total]).append)

        cross_fit(features, head_settings("distance"), Listening())
        for name in ("Searching held-out neighbours", "Scoring held-out images"):
            assert told[name] == [12, *range(1, 13)]
        assert told["Choosing held-out banks"] == [5, 1, 2, 3, 4, 5]


class TestOddData:
    def test_one_image_is_too_few(self, tmp_path: Path) -> None:
        write_class(tmp_path, good=1)
        with pytest.raises(DataError, match=r"1 good picture is too few: at least 2"):
            quick_fit(tmp_path)

    @pytest.mark.parametrize("images", [2, 3])
    def test_a_few_images_make_a_model(self, tmp_path: Path, images: int) -> None:
        write_class(tmp_path, good=images)
        fitted = quick_fit(tmp_path)
        assert len(fitted.normal.scores) == images
        assert len(fitted.memory_bank) == int(images * PATCHES * 0.4)

    def test_identical_flat_pictures_in_a_bank_of_every_patch_fit_and_export(
        self, tmp_path: Path
    ) -> None:
        flat = np.full((80, 80, 3), 128, np.uint8)
        for i in range(3):
            write_picture(tmp_path / CLASS_NAME / f"{i}.png", flat)
        fitted, settings = quick_fit(tmp_path, coreset_ratio=1.0), settings_with(coreset_ratio=1.0)
        assert len(fitted.memory_bank) == 3 * PATCHES
        path = export_model(fitted, settings, tmp_path / "models", SilentSteps())
        parity = load_manifest(manifest_path(path)).parity
        assert parity is not None and parity.image_score_max_relative_error < 1e-3
        frames = np.stack([np.full((64, 64, 3), 128, np.uint8), np.zeros((64, 64, 3), np.uint8)])
        frames[1, 20:40, 20:40] = 255
        with open_engine(path) as engine:
            prediction = engine.infer(frames)
        assert np.isfinite(prediction.anomaly_map).all()
        assert np.isfinite(prediction.influence_map).all()
        normal, odd = prediction.image_score
        assert normal < 0.01 * odd

    def test_identical_pictures_of_a_part(self, drawn_data: Path, tmp_path: Path) -> None:
        source = drawn_data / CLASS_NAME / "train" / "good" / "000.png"
        folder = tmp_path / CLASS_NAME
        folder.mkdir()
        for i in range(6):
            shutil.copy(source, folder / f"{i}.png")
        fitted = quick_fit(tmp_path)
        values = [*fitted.normal.scores, fitted.statistics.mean, fitted.statistics.std]
        assert np.isfinite(values).all()
        assert fitted.memory_bank.isfinite().all()
        # Nothing is known of a false-alarm rate, and that is said.
        assert fitted.threshold.value > max(fitted.normal.scores)
        assert (fitted.threshold.tail, fitted.threshold.interval) == (None, None)
        sentence = caveat(fitted.threshold, 6)
        assert sentence is not None and "the same" in sentence

    def test_pictures_of_mixed_sizes_and_modes(self, tmp_path: Path) -> None:
        folder = tmp_path / CLASS_NAME
        images = [
            np.random.default_rng(i).integers(0, 256, shape, np.uint8)
            for i, shape in enumerate([(64, 64), (50, 90, 3), (300, 70, 4), (33, 33)])
        ]
        for i, image in enumerate(images):
            write_picture(folder / f"{i}.png", image)
        write_picture(folder / "deep.png", images[0].astype(np.uint16) * 257)
        fitted = quick_fit(tmp_path)
        assert fitted.training_set.images == 5
        assert fitted.memory_bank.isfinite().all()


class TestDevice:
    def test_cuda_that_is_not_there_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ConfigurationError, match=r"finds no CUDA here. Use --device cpu"):
            choose_device("cuda")
        assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")

    def test_auto_takes_cuda_where_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
