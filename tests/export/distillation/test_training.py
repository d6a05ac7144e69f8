"""Trainings of a few steps: what is learned, resumed, interrupted and refused."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from patchline.export.config_train import TrainSettings
from patchline.export.datasets import good_pictures, labelled_pictures
from patchline.export.distillation import loop, trainer
from patchline.export.distillation.checkpoint import BEFORE_NAME, checkpoint_path
from patchline.export.distillation.detector import DistilledDetector
from patchline.export.distillation.frames import TrainingFrames
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.distillation.schedule import batches_of_epoch
from patchline.export.distillation.trainer import Trainer
from patchline.export.distillation.training import TrainingResult
from patchline.export.distillation.training_state import trained_parts
from patchline.export.distillation.uninterrupted import uninterrupted
from patchline.export.features import read_frames
from patchline.export.tracking.base import NoTracker
from patchline.runtime.errors import ConfigurationError, DataError, ImageReadError, TrainingError
from patchline.runtime.interrupt import remembered_interrupts
from patchline.runtime.progress import SilentSteps

from ..drawn import write_good
from ..precision_flags import FULL, flags_now
from .frames_of import TINY, Listener, settings_with, size_of, slim_model, tiny_model, train_tiny

NOISY = settings_with(noise=True, noise_warmup_epochs=2, noise_coreset_ratio=0.2)
STEPS = 12  # four epochs of three batches: 4, 4 and 2 pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_good(tmp_path_factory.mktemp("good"), 10, side_px=64)


Trained = tuple[ReverseDistillation, TrainingResult, Listener]


@pytest.fixture(scope="module", params=[TINY, NOISY], ids=["plain", "noisy"])
def settings(request: pytest.FixtureRequest) -> TrainSettings:
    chosen: TrainSettings = request.param
    return chosen


@pytest.fixture(scope="module")
def whole(pictures: list[Path], settings: TrainSettings) -> Trained:
    """A training that nothing interrupts."""
    listener = Listener()
    model, result = train_tiny(pictures, settings, tracker=listener, seed=1)
    return model, result, listener


def state(model: ReverseDistillation) -> dict[str, torch.Tensor]:
    return dict(trained_parts(model).state_dict())


def assert_same_state(one: ReverseDistillation, other: ReverseDistillation) -> None:
    for name, tensor in state(one).items():
        assert torch.equal(tensor, state(other)[name]), name


def test_the_loss_falls(whole: Trained) -> None:
    model, result, _ = whole
    assert result.epochs == 4
    assert result.loss == result.losses[-1] < 0.7 * result.losses[0]
    assert not any(part.training for part in model.modules())


def test_the_networks_themselves_learn(pictures: list[Path]) -> None:
    model, result = train_tiny(
        pictures, settings_with(epochs=3, warmup_epochs=0, lr=1e-3), model=tiny_model()
    )
    assert result.losses[2] < 0.7 * result.losses[0]
    assert all(bool(tensor.isfinite().all()) for tensor in state(model).values())


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("noise", [False, True])
def test_two_epochs_tell_real_bottles_apart(shared: Path, noise: bool) -> None:
    """With real weights, at 128 px: an untrained student is at chance."""
    weights = str(shared / "weights" / "resnet18_imagenet1k_v1_bnfolded_layer1-3.pth")
    model = ReverseDistillation("resnet18", size_of(128, 128), weights)
    test_set = labelled_pictures(shared / "data", "bottle")
    frames = torch.from_numpy(read_frames(tuple(item.path for item in test_set), model.size))

    def image_auroc() -> float:
        detector = DistilledDetector(model)
        scores = [detector.predict(part)[0].numpy() for part in torch.split(frames, 16)]
        is_defective = [item.is_defective for item in test_set]
        return float(roc_auc_score(is_defective, np.concatenate(scores)))

    before = image_auroc()
    pictures = list(good_pictures(shared / "data", "bottle").paths)
    settings = TrainSettings(
        epochs=2, warmup_epochs=1, decay_at=1.0, noise=noise, noise_warmup_epochs=0
    )
    _, result = train_tiny(pictures, settings, model=model)
    assert before < 0.7
    assert result.losses[1] < 0.5 * result.losses[0]
    assert image_auroc() > 0.9


def test_what_the_tracker_is_told(whole: Trained) -> None:
    _, result, listener = whole
    assert [step for step, _ in listener.told] == list(range(1, STEPS + 1))
    for _, values in listener.told:
        assert values.keys() == {
            *("loss", "loss/scale_1", "loss/scale_2", "loss/scale_3", "lr", "epoch"),
            *("time/batch_s", "time/data_s", "time/optimizer_s"),
        }
        parts = sum(values[f"loss/scale_{at}"] for at in (1, 2, 3))
        assert values["loss"] == pytest.approx(parts, rel=1e-5)
        assert 0 <= values["time/data_s"] <= values["time/batch_s"]
        assert 0 < values["time/optimizer_s"] <= values["time/batch_s"]
    told = [values for _, values in listener.told]
    assert [t["epoch"] for t in told] == pytest.approx([step / 3 for step in range(1, 13)])
    assert [t["lr"] for t in told[:4]] == pytest.approx([2e-3 / 3, 4e-3 / 3, 2e-3, 2e-3])
    means = [sum(t["loss"] for t in told[at : at + 3]) / 3 for at in range(0, STEPS, 3)]
    assert list(result.losses) == means


def test_the_noise_is_summed_up(whole: Trained, settings: TrainSettings) -> None:
    _, result, _ = whole
    if not settings.noise:
        assert result.noise is None
        return
    assert result.noise is not None
    assert (result.noise.smallest, result.noise.largest) == (0.01, 0.3)
    assert result.noise.warmup_epochs == 2
    assert result.noise.bank_rows == (128, 32, 8)  # a fifth of 640, 160 and 40 patches
    assert all(found.mean > 0 for found in result.noise.statistics)


def test_noise_enters_the_bottleneck_and_not_what_is_to_be_rebuilt(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = slim_model()
    given: list[Any] = []
    asked: list[Any] = []
    model.bottleneck.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    loss = trainer.cosine_loss

    def watched(teacher: Any, student: Any) -> Any:
        asked.append(teacher)
        return loss(teacher, student)

    monkeypatch.setattr(trainer, "cosine_loss", watched)
    changes = {"epochs": 3, "batch_size": 10, "noise_warmup_epochs": 2}
    train_tiny(pictures, TrainSettings(**(NOISY.model_dump() | changes)), model=model, seed=1)
    sizes = []
    for epoch, (noisy, clean) in enumerate(zip(given, asked, strict=True)):
        shown = batches_of_epoch(10, 10, 1, epoch)[0]
        frames = torch.from_numpy(read_frames(tuple(pictures[at] for at in shown), model.size))
        for layer, expected in zip(clean, model.teacher_features(frames), strict=True):
            assert torch.equal(layer, expected)
        sizes.append([float((a - b).std()) for a, b in zip(noisy, clean, strict=True)])
    half, whole, again = sizes
    assert half == pytest.approx([value / 2 for value in whole], rel=0.1)
    assert again == pytest.approx(whole, rel=0.1)
    assert again != whole  # drawn anew


def test_noise_and_seed_change_what_is_learned(pictures: list[Path]) -> None:
    short = {"epochs": 1, "batch_size": 10}
    plain = train_tiny(pictures, settings_with(**short))[1].losses
    noisy = train_tiny(pictures, TrainSettings(**(NOISY.model_dump() | short)))[1].losses
    shuffled = train_tiny(pictures, settings_with(**short), seed=5)[1].losses
    assert len({plain, noisy, shuffled}) == 3


@pytest.mark.parametrize("step", [2, 3, 6, STEPS - 1])
def test_a_resumed_training_ends_at_the_same_numbers(
    pictures: list[Path], settings: TrainSettings, whole: Trained, tmp_path: Path, step: int
) -> None:
    interrupted = Listener(interrupt_at=step)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(pictures, settings, tracker=interrupted, checkpoints=tmp_path, seed=1)
    torch.manual_seed(step)  # nothing may hang on torch's own generator
    resumed = Listener()
    model, result = train_tiny(
        pictures,
        settings,
        model=slim_model(seed=9),  # whose fresh weights must not matter
        tracker=resumed,
        checkpoints=tmp_path,
        resume=True,
        seed=1,
        memory_budget_bytes=1 << 10,  # so that frames are read batch by batch
    )
    assert_same_state(model, whole[0])
    assert result.losses == whole[1].losses
    assert result.noise == whole[1].noise
    told = [*interrupted.told, *resumed.told]
    names = ("loss", "loss/scale_1", "lr", "epoch")
    assert [(at, *(values[name] for name in names)) for at, values in told] == [
        (at, *(values[name] for name in names)) for at, values in whole[2].told
    ]


def test_a_finished_training_is_resumed_to_the_same(pictures: list[Path], tmp_path: Path) -> None:
    settings = settings_with(epochs=2)
    model, result = train_tiny(pictures, settings, checkpoints=tmp_path)
    assert checkpoint_path(tmp_path).is_file()
    listener = Listener()
    again, repeated = train_tiny(
        pictures, settings, checkpoints=tmp_path, resume=True, tracker=listener
    )
    assert listener.told == []
    assert repeated == result
    assert_same_state(again, model)


def test_two_trainings_are_the_same(pictures: list[Path], tmp_path: Path) -> None:
    """Whether or not frames fit the memory budget, and checkpoints are kept."""
    settings = settings_with(epochs=2)
    model, result = train_tiny(pictures, settings)
    again, repeated = train_tiny(
        pictures, settings, checkpoints=tmp_path, memory_budget_bytes=1 << 10
    )
    assert repeated.losses == result.losses
    assert_same_state(again, model)


def test_checkpoints_come_every_few_epochs(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = loop.save_checkpoint

    def watched(checkpoint: Any, folder: Path) -> Path:
        saved.append(checkpoint.progress.epoch)
        return save(checkpoint, folder)

    monkeypatch.setattr(loop, "save_checkpoint", watched)
    settings = settings_with(epochs=5, checkpoint_every=2, batch_size=10)
    train_tiny(pictures, settings, checkpoints=tmp_path)
    assert saved == [2, 4, 5]


def test_ctrl_c_writes_a_checkpoint_at_the_end_of_the_step(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def pressed(self: Trainer, *given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, *given)

    listener = Listener()
    monkeypatch.setattr(Trainer, "step", pressed)
    with remembered_interrupts(), pytest.raises(KeyboardInterrupt):
        train_tiny(pictures, checkpoints=tmp_path, tracker=listener)
    assert listener.told == []  # it came right after the step, and no later
    monkeypatch.undo()
    train_tiny(pictures, checkpoints=tmp_path, resume=True, tracker=listener)
    assert [at for at, _ in listener.told] == list(range(2, STEPS + 1))


def test_a_second_ctrl_c_saves_no_half_step(
    pictures: list[Path],
    whole: Trained,
    settings: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The networks have learned from the fifth batch, and nothing says so yet."""
    step = Trainer.step

    def pressed_twice(self: Trainer, frames: Any, epoch: int, batch: int, shown: Any) -> Any:
        figures = step(self, frames, epoch, batch, shown)
        if (epoch, batch) == (1, 1):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return figures

    every = settings.model_copy(update={"checkpoint_every": 1})
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", pressed_twice)
        with remembered_interrupts(), pytest.raises(KeyboardInterrupt):
            train_tiny(pictures, every, checkpoints=tmp_path, seed=1)
    listener = Listener()
    model, result = train_tiny(
        pictures, every, checkpoints=tmp_path, resume=True, tracker=listener, seed=1
    )
    assert listener.told[0][0] == 4  # from the first epoch's checkpoint
    assert_same_state(model, whole[0])
    assert result.losses == whole[1].losses


def test_an_interrupt_without_checkpoints_is_one(pictures: list[Path]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_tiny(pictures, tracker=Listener(interrupt_at=1))


class Poison(NoTracker):
    """After a step the student's weights are no numbers any more."""

    def __init__(self, model: ReverseDistillation, step: int, *, interrupts: bool = False) -> None:
        self._model, self._step, self._interrupts = model, step, interrupts

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        if step == self._step:
            next(self._model.student.parameters()).data.fill_(torch.nan)
            if self._interrupts:
                raise KeyboardInterrupt


def test_a_loss_that_is_no_number_stops_at_once(pictures: list[Path], tmp_path: Path) -> None:
    model = slim_model()
    settings = settings_with(checkpoint_every=1)
    with pytest.raises(TrainingError) as caught:
        train_tiny(
            pictures, settings, model=model, tracker=Poison(model, 4), checkpoints=tmp_path, seed=1
        )
    message = str(caught.value)
    assert message.startswith("the loss is nan in epoch 2, batch 2 (")
    named = [path for path in pictures if str(path) in message]
    assert len(named) == 4
    assert f"The last good checkpoint is {checkpoint_path(tmp_path)}." in message
    assert "train.lr below 0.002" in message
    listener = Listener()
    train_tiny(pictures, settings, tracker=listener, checkpoints=tmp_path, resume=True, seed=1)
    assert listener.told[0][0] == 4  # it was that of the first epoch


@pytest.mark.parametrize("interrupts", [False, True])
def test_networks_that_diverge_at_the_end_are_not_kept(
    pictures: list[Path], tmp_path: Path, interrupts: bool
) -> None:
    model = slim_model()
    tracker = Poison(model, STEPS, interrupts=interrupts)
    with pytest.raises(TrainingError, match=r"holds NaN or infinite values.*No checkpoint"):
        train_tiny(pictures, model=model, tracker=tracker, checkpoints=tmp_path)
    assert not checkpoint_path(tmp_path).exists()
    if not interrupts:
        model = slim_model()
        with pytest.raises(TrainingError, match="holds NaN or infinite values"):
            train_tiny(pictures, model=model, tracker=Poison(model, STEPS))


def test_a_damaged_teacher_is_told_from_a_diverged_student(pictures: list[Path]) -> None:
    model = slim_model()
    model.teacher.layer1[0].conv1.weight.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"epoch 1, batch 1 .* teacher's own features"):
        train_tiny(pictures, model=model)


def fail(error: BaseException) -> Any:
    def step(*_: Any) -> Any:
        raise error

    return step


def allocator_error() -> RuntimeError:
    """What PyTorch's own allocator says on the CPU."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nMore"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        allocator_error(),
        MemoryError(),
    ],
)
def test_too_little_memory_names_the_settings(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Trainer, "step", fail(error))
    expected = (
        r"train\.batch_size 4 at image_size 32x32 \(.*\).*--set train\.batch_size=2, and start "
        "anew without --resume: a checkpoint belongs to its batch size and image size. No check"
    )
    with pytest.raises(TrainingError, match=expected) as caught:
        train_tiny(pictures)
    assert "\n" not in str(caught.value)
    with pytest.raises(TrainingError, match=r"\(.*\)\. Give a smaller --image-size, and") as caught:
        train_tiny(pictures, settings_with(batch_size=2))
    assert "--set" not in str(caught.value)


def test_too_little_memory_for_the_networks_themselves(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with(epochs=1)
    train_tiny(pictures, settings, checkpoints=tmp_path)
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
    monkeypatch.setattr(ReverseDistillation, "to", fail(error))
    left = f"The last good checkpoint is {checkpoint_path(tmp_path)}."
    for is_resumed, expected in ((False, "No checkpoint was written yet."), (True, left)):
        with pytest.raises(TrainingError, match="memory does not suffice") as caught:
            train_tiny(pictures, settings, checkpoints=tmp_path, resume=is_resumed)
        assert str(caught.value).endswith(expected)


def test_another_error_stays_what_it_is(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "step", fail(RuntimeError("shapes cannot be multiplied")))
    with pytest.raises(RuntimeError, match=r"^shapes cannot be multiplied$"):
        train_tiny(pictures)


def test_fewer_pictures_than_a_batch_are_refused(pictures: list[Path]) -> None:
    with pytest.raises(DataError, match=r"3 good pictures.*batch of 4.*train\.batch_size=3"):
        train_tiny(pictures[:3])
    with pytest.raises(DataError, match="1 good pictures to train on are too few: at least 2"):
        train_tiny(pictures[:1])
    with pytest.raises(ConfigurationError, match=r"train\.batch_size is 1, expected at least 2"):
        train_tiny(pictures, settings_with(batch_size=1))


def test_a_checkpoint_of_another_training_is_refused(pictures: list[Path], tmp_path: Path) -> None:
    settings = settings_with(epochs=1)
    train_tiny(pictures, settings, checkpoints=tmp_path)

    def assert_refused(expected: str, used: list[Path] = pictures, **changes: Any) -> None:
        given = TrainSettings(**(settings.model_dump() | changes.pop("settings", {})))
        with pytest.raises(TrainingError, match=expected):
            train_tiny(used, given, checkpoints=tmp_path, resume=True, **changes)

    assert_refused(r"train\.epochs is 1 there and 2 here", settings={"epochs": 2})
    assert_refused(r"train\.lr is 0\.002 there and 0\.001 here", settings={"lr": 0.001})
    assert_refused("seed is 0 there and 1 here", seed=1)
    assert_refused("pictures is 10 there and 9 here; pictures_sha256 is", pictures[:9])
    assert_refused("pictures_sha256 is", pictures[::-1])
    other = slim_model()
    other.name, other.size, other.student = "resnet50", size_of(32, 64), tiny_model().student
    assert_refused(
        r'backbone is "resnet18" there and "resnet50" here; '
        r"image_size is \[32, 32\] there and \[32, 64\] here; architecture is",
        model=other,
    )
    # What changes no number may change.
    train_tiny(
        pictures,
        TrainSettings(**(settings.model_dump() | {"checkpoint_every": 3, "evaluate_every": 7})),
        checkpoints=tmp_path,
        resume=True,
    )


def test_resuming_needs_a_checkpoint(pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"to resume from\. Start anew without --resume"):
        train_tiny(pictures, checkpoints=tmp_path, resume=True)
    with pytest.raises(ConfigurationError, match="only where its checkpoints are kept"):
        train_tiny(pictures, resume=True)


def test_everything_is_computed_in_full_float32(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    step = Trainer.step

    def watched(self: Trainer, *given: Any) -> Any:
        seen.append(flags_now())
        return step(self, *given)

    def validate(model: ReverseDistillation, epoch: int) -> None:
        seen.append(flags_now())

    monkeypatch.setattr(Trainer, "step", watched)
    train_tiny(pictures, settings_with(epochs=1, batch_size=10), validate=validate)
    assert seen == [FULL] * 2
    assert flags_now() != FULL


def test_a_device_is_waited_for_once_for_all_figures(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(value: torch.Tensor) -> float:
        raise AssertionError("each float() of a tensor waits for the GPU")

    monkeypatch.setattr(torch.Tensor, "__float__", wait)
    listener = Listener()
    train_tiny(pictures, settings_with(epochs=1, batch_size=10), tracker=listener)
    assert len(listener.told) == 1


def test_a_model_is_validated_every_few_epochs(pictures: list[Path]) -> None:
    model = slim_model()
    epochs: list[int] = []

    def validate(given: ReverseDistillation, epoch: int) -> None:
        assert given is model
        given.eval().requires_grad_(False)  # as a detector has it; the training cannot go on so
        epochs.append(epoch)

    settings = settings_with(epochs=3, evaluate_every=2)
    _, result = train_tiny(pictures, settings, model=model, validate=validate)
    plain = train_tiny(pictures, settings)[1]
    assert epochs == [2, 3]
    assert result.losses == plain.losses


def test_a_new_training_keeps_the_earlier_checkpoint(pictures: list[Path], tmp_path: Path) -> None:
    path, kept = checkpoint_path(tmp_path), tmp_path / BEFORE_NAME
    settings = settings_with(epochs=2, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(pictures, settings, checkpoints=tmp_path, tracker=Listener(interrupt_at=2))
    first = path.read_bytes()  # of less than an epoch, and kept: there was none before
    with pytest.raises(KeyboardInterrupt):
        train_tiny(pictures, settings, checkpoints=tmp_path, tracker=Listener(interrupt_at=1))
    assert path.read_bytes() == first and not kept.exists()
    with pytest.raises(KeyboardInterrupt):
        train_tiny(pictures, settings, checkpoints=tmp_path, tracker=Listener(interrupt_at=4))
    second = path.read_bytes()
    assert second != first and kept.read_bytes() == first
    train_tiny(pictures, settings, checkpoints=tmp_path, resume=True)  # replaces its own
    assert kept.read_bytes() == first
    third = path.read_bytes()
    train_tiny(pictures, settings, checkpoints=tmp_path)
    assert path.read_bytes() == third != second  # the same training once more
    assert kept.read_bytes() == third


def test_an_earlier_checkpoint_is_not_called_the_last_good_one(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_with(epochs=2)
    train_tiny(pictures, settings, checkpoints=tmp_path)
    before = checkpoint_path(tmp_path).read_bytes()
    for step in (3, 6):  # before the first checkpoint, and in it
        model = slim_model()
        with pytest.raises(TrainingError, match=r"No checkpoint was written yet\."):
            train_tiny(
                pictures, settings, model=model, tracker=Poison(model, step), checkpoints=tmp_path
            )
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", fail(MemoryError()))
        with pytest.raises(TrainingError, match=r"No checkpoint was written yet\."):
            train_tiny(pictures, settings, checkpoints=tmp_path)
    assert checkpoint_path(tmp_path).read_bytes() == before
    assert not (tmp_path / BEFORE_NAME).exists()


@pytest.mark.parametrize("budget_bytes", [1 << 20, 1 << 10])
def test_frames_are_the_projects_own(pictures: list[Path], budget_bytes: int) -> None:
    frames = TrainingFrames(pictures, size_of(32, 64), budget_bytes, SilentSteps())
    assert frames.in_memory == (budget_bytes == 1 << 20)
    batches = [[3, 1], [0, 9, 4], [2]]
    for numbers, found in zip(batches, frames.batches(batches), strict=True):
        expected = read_frames(tuple(pictures[at] for at in numbers), size_of(32, 64))
        assert torch.equal(found, torch.from_numpy(expected))
    assert list(frames.batches([])) == []


def test_a_picture_that_vanishes_is_an_error(tmp_path: Path) -> None:
    paths = write_good(tmp_path, 4)
    frames = TrainingFrames(paths, size_of(32, 32), 1, SilentSteps())
    paths[2].unlink()
    with pytest.raises(ImageReadError, match=r"002\.png"):
        list(frames.batches([[0, 1], [2, 3]]))
    assert not [one.name for one in threading.enumerate() if one.name.startswith("frames")]


def test_an_interrupt_waits_for_the_end() -> None:
    passed = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        passed.append(1)
    assert passed == [1]
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_second_interrupt_does_not_wait() -> None:
    passed = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        passed.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        passed.append(2)
    assert passed == [1]


def test_an_error_inside_is_not_replaced_by_an_interrupt() -> None:
    with pytest.raises(TrainingError), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        raise TrainingError("the loss is nan")


def test_another_thread_trains_too(pictures: list[Path]) -> None:
    results: list[TrainingResult] = []
    settings = settings_with(epochs=1)
    thread = threading.Thread(target=lambda: results.append(train_tiny(pictures, settings)[1]))
    thread.start()
    thread.join()
    assert [result.losses for result in results] == [train_tiny(pictures, settings)[1].losses]
