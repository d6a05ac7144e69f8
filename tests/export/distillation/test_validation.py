"""The model under training, judged by test pictures: right, and without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from patchline.export.config_train import TrainSettings
from patchline.export.datasets import labelled_pictures
from patchline.export.distillation.detector import DistilledDetector
from patchline.export.distillation.training_state import trained_parts
from patchline.export.distillation.validation import Validation, judge_of
from patchline.export.evaluation.test_set import read_mask
from patchline.export.features import read_frames
from patchline.export.tracking.metrics_log import MetricsLog
from patchline.runtime.errors import ClassNotFoundError, DataError, EngineError, ImageReadError

from ..drawn import CLASS_NAME, write_class, write_good
from ..recorder import Recorder
from .frames_of import Listener, settings_with, size_of, slim_model, train_tiny

SIZE = size_of(32, 32)
EACH = settings_with(epochs=3, evaluate_every=1)
IMAGE_AUROC = f"metrics/{CLASS_NAME}/image_auroc"
FIXED = f"examples/{CLASS_NAME}/fixed"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn class, only to be read."""
    root = tmp_path_factory.mktemp("data")
    write_class(root, good=10)
    return root


@pytest.fixture(scope="module")
def pictures(data: Path) -> list[Path]:
    return sorted((data / CLASS_NAME / "train" / "good").iterdir())


class Watched:
    """A validation of the drawn class, and all that it says."""

    def __init__(self, folder: Path, exported_epoch: int | None = None) -> None:
        self.tracker, self.told = Recorder(), list[str]()
        self.validate = Validation(
            folder,
            SIZE,
            self.tracker,
            MetricsLog(self.tracker, CLASS_NAME, {}),
            exported_epoch=exported_epoch,
            tell=self.told.append,
        )

    @property
    def epochs(self) -> list[int]:
        return [step for step, _ in self.tracker.history(IMAGE_AUROC)]


def weights_of(settings: TrainSettings, pictures: list[Path], **more: Any) -> dict[str, bytes]:
    model, result = train_tiny(pictures, settings, **more)
    assert result.epochs == settings.epochs
    state = trained_parts(model).state_dict()
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


@pytest.mark.parametrize("changes", [{}, {"noise": True, "noise_coreset_ratio": 0.2}])
def test_it_leaves_no_trace(
    data: Path, pictures: list[Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = TrainSettings(**(EACH.model_dump() | {"noise_warmup_epochs": 2} | changes))
    torch.manual_seed(3)
    expected = weights_of(settings, pictures)
    after = torch.random.get_rng_state()
    torch.manual_seed(3)
    watched = Watched(data / CLASS_NAME)
    assert weights_of(settings, pictures, validate=watched.validate) == expected
    assert torch.equal(torch.random.get_rng_state(), after)
    assert watched.epochs == [1, 2, 3] and not watched.told

    # Resumed in the second epoch, once without and once with it.
    with pytest.raises(KeyboardInterrupt):
        train_tiny(
            pictures,
            settings,
            tracker=Listener(interrupt_at=5),
            checkpoints=tmp_path,
            validate=Watched(data / CLASS_NAME).validate,
        )
    watched = Watched(data / CLASS_NAME)
    resumed = weights_of(
        settings, pictures, checkpoints=tmp_path, resume=True, validate=watched.validate
    )
    assert resumed == expected
    assert watched.epochs == [2, 3]


def test_the_figures_are_those_of_the_model(data: Path) -> None:
    watched, model = Watched(data / CLASS_NAME), slim_model(seed=4)
    watched.validate(model, 7)
    test_set = labelled_pictures(data, CLASS_NAME)
    frames = read_frames(tuple(item.path for item in test_set), SIZE)
    scores, maps, _ = DistilledDetector(model).predict(torch.from_numpy(frames))
    labels = [item.is_defective for item in test_set]
    masks = np.zeros(maps.shape, bool)
    for at, item in enumerate(test_set):
        if item.mask is not None:
            masks[at] = read_mask(item.mask, (96, 96), SIZE)
    figures = watched.tracker.figures
    assert len(figures) == 4 * 8
    assert figures[IMAGE_AUROC] == pytest.approx(roc_auc_score(labels, scores.numpy()))
    assert figures[f"metrics/{CLASS_NAME}/image_ap"] == pytest.approx(
        average_precision_score(labels, scores.numpy())
    )
    assert figures[f"metrics/best/{CLASS_NAME}/pixel_auroc"] == pytest.approx(
        roc_auc_score(masks.ravel(), maps.numpy().ravel()), abs=1e-4
    )
    assert {step for step, _ in watched.tracker.logged} == {7}
    assert watched.tracker.shown == [(7, FIXED)]
    shown = watched.tracker.pictures[FIXED]
    assert list(shown) == ["good/000.png", "chip/000.png", "contamination/000.png", "good/001.png"]
    assert all(picture.shape == (32, 64, 3) for picture in shown.values())


def test_judging_is_that_of_the_detector(pictures: list[Path]) -> None:
    model = slim_model()
    judged = list(judge_of(model)(pictures[:3]))
    frames = read_frames(tuple(pictures[:3]), SIZE)
    scores, maps, influence = DistilledDetector(model).predict(torch.from_numpy(frames))
    assert [item.path for item in judged] == pictures[:3]
    assert [item.score for item in judged] == pytest.approx(scores.tolist(), rel=1e-5)
    for at, item in enumerate(judged):
        np.testing.assert_allclose(item.anomaly_map, maps[at], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(item.influence_map, influence[at], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3]), (2, [2, 3]), (50, [3])])
def test_it_comes_every_few_epochs_and_after_the_last(
    pictures: list[Path], every: int, expected: list[int]
) -> None:
    settings, seen = settings_with(epochs=3, evaluate_every=every), list[int]()
    train_tiny(pictures, settings, validate=lambda model, epoch: seen.append(epoch))
    assert seen == expected


def test_the_epoch_that_is_exported_is_left_to_the_file(data: Path, pictures: list[Path]) -> None:
    watched = Watched(data / CLASS_NAME, exported_epoch=3)
    train_tiny(pictures, EACH, validate=watched.validate)
    assert watched.epochs == [1, 2]


def test_a_checkpoint_is_written_before_it(pictures: list[Path], tmp_path: Path) -> None:
    """What goes wrong in it, or an interrupt, costs no epoch."""

    def fail(model: Any, epoch: int) -> None:
        raise ValueError("a bug")

    settings = settings_with(epochs=2, evaluate_every=1, checkpoint_every=1)
    with pytest.raises(ValueError, match="a bug"):
        train_tiny(pictures, settings, checkpoints=tmp_path, validate=fail)
    listener = Listener()
    train_tiny(pictures, settings, checkpoints=tmp_path, resume=True, tracker=listener)
    assert [step for step, _ in listener.told] == [4, 5, 6]


def test_what_cannot_be_judged_is_told_once_and_the_training_goes_on(
    tmp_path: Path, pictures: list[Path]
) -> None:
    watched = Watched(write_class(tmp_path, good=1))
    (tmp_path / CLASS_NAME / "test" / "good" / "001.png").write_bytes(b"broken")
    train_tiny(pictures, EACH, validate=watched.validate)
    (sentence,) = watched.told
    assert sentence.startswith(f"{CLASS_NAME} is no longer evaluated during its training: cannot")
    assert "test/good/001.png" in sentence
    assert watched.tracker.logged == [] and watched.tracker.shown == []


def test_a_model_that_gives_no_numbers(pictures: list[Path]) -> None:
    model = slim_model()
    next(model.student.parameters()).data.fill_(torch.nan)
    with pytest.raises(EngineError, match=r"000\.png holds NaN.* The training may be diverging"):
        list(judge_of(model)(pictures))


def test_what_has_no_test_pictures_is_refused(tmp_path: Path) -> None:
    folder = write_class(tmp_path)
    (folder / "test" / "chip" / "000.png").write_bytes(b"broken")
    with pytest.raises(ImageReadError, match=r"chip/000\.png"):
        Watched(folder)
    write_good(tmp_path / "plain", 1)
    with pytest.raises(DataError, match="plain/test holds no labelled pictures"):
        Watched(tmp_path / "plain")
    with pytest.raises(ClassNotFoundError, match="no class nowhere"):
        Watched(tmp_path / "nowhere")
