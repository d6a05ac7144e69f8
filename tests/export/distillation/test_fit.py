"""Fitting a distilled model: what it is trained on, its threshold, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchline.calibration.threshold import caveat, threshold_of_fit
from patchline.export.datasets import GoodPictures, digest_of, good_pictures, picture_digests
from patchline.export.distillation import fit as module
from patchline.export.distillation.detector import DistilledDetector
from patchline.export.distillation.fit import DistilledModel, fit_distillation
from patchline.export.distillation.state import trained_tensors
from patchline.export.features import read_frames
from patchline.export.tracking.base import NoTracker
from patchline.runtime.errors import ConfigurationError, DataError, ImageReadError, TrainingError
from patchline.runtime.progress import SilentSteps

from ..drawn import CLASS_NAME, refuse, write_class
from ..precision_flags import FULL, flags_now
from .distilled import QUICK, quick_distillation, settings_with


def distil(
    pictures: GoodPictures, *, on_unreadable: Any = refuse, **changes: Any
) -> DistilledModel:
    settings = settings_with(**changes)
    return fit_distillation(pictures, settings, SilentSteps(), on_unreadable, tracker=NoTracker())


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch, distilled: DistilledModel) -> list[Any]:
    """No training: what it would have been given is kept here instead."""
    given: list[Any] = []

    def train(model: Any, pictures: Any, settings: Any, **how: Any) -> Any:
        given.append((model, pictures, settings, how))
        return distilled.result

    monkeypatch.setattr(module, "train", train)
    return given


class TestHeldOut:
    def test_the_threshold_comes_from_pictures_that_were_not_trained_on(
        self, distilled: DistilledModel
    ) -> None:
        frames = read_frames(distilled.held_out, QUICK.model_size)
        scores, maps, _ = distilled.detector.predict(torch.from_numpy(frames))
        expected = sorted(scores.tolist())
        assert distilled.normal.scores == pytest.approx(expected, rel=1e-5)
        assert distilled.normal.map_maxima == pytest.approx(
            sorted(maps.amax((1, 2)).tolist()), rel=1e-5
        )
        assert distilled.normal.source == "calibration-split"
        assert distilled.threshold == threshold_of_fit(distilled.normal, QUICK.false_alarm_rate)
        assert "2 scores of good pictures kept out of the fit" in distilled.threshold.rule

    def test_they_are_judged_in_full_float32(
        self, drawn_data: Path, monkeypatch: pytest.MonkeyPatch, untrained: list[Any]
    ) -> None:
        seen: list[dict[str, Any]] = []
        predict = DistilledDetector.predict

        def watched(self: DistilledDetector, frames: torch.Tensor) -> Any:
            seen.append(flags_now())
            return predict(self, frames)

        monkeypatch.setattr(DistilledDetector, "predict", watched)
        quick_distillation(drawn_data)
        assert seen == [FULL] * 2
        assert flags_now() != FULL

    @pytest.mark.parametrize(("share", "count"), [(None, 2), (0.5, 6), (0.01, 2), (0.7, 8)])
    def test_each_picture_is_trained_on_or_kept_out(
        self, drawn_data: Path, untrained: list[Any], share: float | None, count: int
    ) -> None:
        pictures = good_pictures(drawn_data, CLASS_NAME)
        fitted = distil(pictures, calibration_split=share)
        ((_, trained_on, _, _),) = untrained
        assert len(fitted.held_out) == count == len(fitted.normal.scores)
        assert set(fitted.held_out) | set(trained_on) == set(pictures.paths)
        assert len(fitted.held_out) + len(trained_on) == 12

    def test_the_draw_is_the_seeds(self, drawn_data: Path, untrained: list[Any]) -> None:
        pictures = good_pictures(drawn_data, CLASS_NAME)
        first, again, other = (distil(pictures, seed=seed).held_out for seed in (0, 0, 3))
        assert first == again != other

    def test_too_few_for_the_rate_are_said(self, distilled: DistilledModel) -> None:
        sentence = caveat(distilled.threshold, len(distilled.normal.scores))
        assert sentence is not None and sentence.startswith("2 good pictures support a")


class TestFit:
    def test_the_settings_reach_the_training(
        self, drawn_data: Path, tmp_path: Path, untrained: list[Any]
    ) -> None:
        settings = settings_with(seed=5, memory_budget_bytes=1 << 21, train={"lr": 0.1})
        tracker = NoTracker()

        def judge(model: Any, epoch: int) -> None:
            pass

        fit_distillation(
            good_pictures(drawn_data, CLASS_NAME),
            settings,
            SilentSteps(),
            refuse,
            tracker=tracker,
            checkpoints=tmp_path,
            resume=True,
            validate=judge,
        )
        ((model, _, train, how),) = untrained
        assert train == settings.train and train.lr == 0.1
        assert (how["seed"], how["memory_budget_bytes"]) == (5, 1 << 21)
        assert how["tracker"] is tracker
        assert (how["checkpoints"], how["resume"]) == (tmp_path, True)
        assert how["validate"] is judge
        assert model.name == "resnet18"

    def test_what_it_says_of_its_pictures(
        self, distilled: DistilledModel, drawn_data: Path
    ) -> None:
        paths = good_pictures(drawn_data, CLASS_NAME).paths
        training = distilled.training_set
        assert (training.images, training.calibration_images) == (12, 2)
        assert training.skipped_unreadable == 0 and training.sha256 == digest_of(paths)
        assert distilled.pictures.paths == paths
        assert distilled.picture_digests == picture_digests(paths)
        assert distilled.result.epochs == 1 and 0 < distilled.result.loss < 6

    def test_it_is_left_on_the_cpu(self, distilled: DistilledModel) -> None:
        assert {p.device.type for p in distilled.detector.parameters()} == {"cpu"}

    def test_the_same_fit_gives_the_same_numbers(
        self, distilled: DistilledModel, drawn_data: Path
    ) -> None:
        again = quick_distillation(drawn_data)
        assert again.normal == distilled.normal and again.threshold == distilled.threshold
        tensors = trained_tensors(distilled.detector.model)
        for name, tensor in trained_tensors(again.detector.model).items():
            assert torch.equal(tensor, tensors[name]), name

    def test_the_noise_is_noted(self, drawn_data: Path) -> None:
        fitted = quick_distillation(drawn_data, train={"noise": True, "noise_coreset_ratio": 0.05})
        noise = fitted.result.noise
        assert noise is not None and len(noise.bank_rows) == 3


class TestRefusals:
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_too_few_pictures(self, tmp_path: Path, count: int) -> None:
        write_class(tmp_path, good=count)
        with pytest.raises(DataError, match=rf"{count} good pictures are too few: at least 4 are"):
            quick_distillation(tmp_path)

    def test_fewer_than_a_batch(self, drawn_data: Path) -> None:
        words = r"12 good pictures leave 10 to train on \(2 are kept .*a batch has 11.*size=10$"
        with pytest.raises(DataError, match=words):
            quick_distillation(drawn_data, train={"batch_size": 11})

    def test_a_split_that_leaves_too_few(self, drawn_data: Path) -> None:
        words = r"leave 4 to train on \(8 .*, a --calibration-split below 0\.7, or .*size=4$"
        with pytest.raises(DataError, match=words):
            quick_distillation(drawn_data, calibration_split=0.7, train={"batch_size": 8})

    def test_too_little_memory_to_judge(
        self, drawn_data: Path, monkeypatch: pytest.MonkeyPatch, untrained: list[Any]
    ) -> None:
        def predict(*given: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

        monkeypatch.setattr(DistilledDetector, "predict", predict)
        words = "does not suffice for a picture at image_size .* Give a smaller --image-size, and"
        with pytest.raises(TrainingError, match=words):
            quick_distillation(drawn_data)

    def test_an_unreadable_picture_is_named_before_the_training(
        self, tmp_path: Path, untrained: list[Any]
    ) -> None:
        folder = write_class(tmp_path)
        (folder / "train/good/011.png").write_bytes(b"no picture")
        with pytest.raises(ImageReadError, match=r"011\.png.*--skip-unreadable$"):
            quick_distillation(tmp_path)
        assert not untrained

    def test_unreadable_pictures_are_left_out_and_counted(
        self, tmp_path: Path, untrained: list[Any]
    ) -> None:
        folder = write_class(tmp_path)
        (folder / "train/good/003.png").write_bytes(b"no picture")
        told: list[ImageReadError] = []
        pictures = good_pictures(tmp_path, CLASS_NAME)
        fitted = distil(pictures, on_unreadable=told.append, skip_unreadable=True)
        training = fitted.training_set
        assert (training.images, training.skipped_unreadable, len(told)) == (11, 1, 1)
        assert "003.png" in str(told[0])
        assert all(path.name != "003.png" for path in fitted.pictures.paths)

    def test_none_that_can_be_read(self, tmp_path: Path) -> None:
        folder = write_class(tmp_path)
        for path in (folder / "train/good").iterdir():
            path.write_bytes(b"no picture")
        pictures = good_pictures(tmp_path, CLASS_NAME)
        with pytest.raises(DataError, match=r"none of the 12 pictures in .*good can be read"):
            distil(pictures, on_unreadable=lambda error: None, skip_unreadable=True)

    def test_a_score_that_is_no_number(
        self, drawn_data: Path, monkeypatch: pytest.MonkeyPatch, distilled: DistilledModel
    ) -> None:
        def train(model: Any, *given: Any, **how: Any) -> Any:
            next(model.student.parameters()).data.fill_(np.nan)
            return distilled.result

        monkeypatch.setattr(module, "train", train)
        with pytest.raises(DataError, match=r"held-out score of .*png is nan.*train.lr=0.00025$"):
            quick_distillation(drawn_data)

    def test_another_backbone_or_size(self, drawn_data: Path) -> None:
        with pytest.raises(ConfigurationError, match="resnet18, resnet50, wide_resnet50_2"):
            quick_distillation(drawn_data, backbone="efficientnet_b0")
        with pytest.raises(ConfigurationError, match="multiples of 32"):
            quick_distillation(drawn_data, image_size=(72, 64))
