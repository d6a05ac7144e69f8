"""Mixed precision's loss scaler: what it skips, keeps and ends; on CUDA where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from patchline.export.distillation import trainer
from patchline.export.distillation.checkpoint import checkpoint_path, load_checkpoint
from patchline.export.distillation.networks import ReverseDistillation
from patchline.export.distillation.training import TrainingResult, train
from patchline.export.distillation.training_state import identity_of, trained_parts
from patchline.export.tracking.base import NoTracker
from patchline.runtime.errors import TrainingError
from patchline.runtime.progress import SilentSteps

from ..drawn import write_good
from .frames_of import Listener, settings_with, slim_model, train_tiny

SHORT = settings_with(epochs=2, checkpoint_every=1)  # two epochs of three batches

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_good(tmp_path_factory.mktemp("good"), 10, side_px=64)


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Turns the scaler on, on the CPU, from a scale that doubles after every two good steps."""

    def turn_on(scale: float) -> None:
        monkeypatch.setattr(
            trainer,
            "GradScaler",
            lambda *_, **__: GradScaler("cpu", init_scale=scale, growth_interval=2),
        )

    return turn_on


def scaler_of(folder: Path, model: ReverseDistillation, pictures: list[Path]) -> Any:
    """The scaler's state in a checkpoint."""
    identity = identity_of(model, tuple(pictures), SHORT, 0)
    return load_checkpoint(folder, identity).progress.scaler


def spoil(model: ReverseDistillation, steps: int) -> None:
    """The gradients of so many steps hold infinite values, and the loss none."""
    left = [steps]

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        left[0] -= 1
        return gradient * torch.inf if left[0] >= 0 else gradient

    next(model.student.parameters()).register_hook(hook)


def test_a_scaled_training_is_resumed_with_its_scale(
    pictures: list[Path], tmp_path: Path, scaled: Callable[[float], None]
) -> None:
    scaled(8.0)
    whole, cut, told = Listener(), Listener(interrupt_at=3), list[str]()
    model, result = train_tiny(pictures, SHORT, checkpoints=tmp_path / "whole", tracker=whole)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(pictures, SHORT, checkpoints=tmp_path, tracker=cut)
    assert scaler_of(tmp_path, model, pictures)["scale"] == 16.0
    again, repeated = train_tiny(
        pictures, SHORT, checkpoints=tmp_path, resume=True, tell=told.append
    )
    assert told == [] and repeated.losses == result.losses
    for name, tensor in trained_parts(model).state_dict().items():
        assert torch.equal(tensor, trained_parts(again).state_dict()[name]), name
    states = [scaler_of(folder, model, pictures) for folder in (tmp_path, tmp_path / "whole")]
    assert states[0] == states[1] and states[0]["scale"] == 64.0  # after six good steps


def test_a_step_without_gradients_is_skipped(
    pictures: list[Path], tmp_path: Path, scaled: Callable[[float], None]
) -> None:
    scaled(8.0)
    model = slim_model()
    spoil(model, 2)
    _, result = train_tiny(pictures, SHORT, model=model, checkpoints=tmp_path)
    assert result.epochs == 2
    assert scaler_of(tmp_path, model, pictures)["scale"] == 8.0  # halved twice, doubled twice


def test_gradients_that_are_never_numbers_end_the_training(
    pictures: list[Path], tmp_path: Path, scaled: Callable[[float], None]
) -> None:
    scaled(8.0)
    model = slim_model()
    spoil(model, 100)
    before = next(model.student.parameters()).detach().clone()
    with pytest.raises(TrainingError) as caught:
        train_tiny(pictures, SHORT, model=model, checkpoints=tmp_path)
    message = str(caught.value)
    assert message.startswith("the gradients hold NaN or infinite values in epoch 2, batch 1 (")
    assert len([path for path in pictures if str(path) in message]) == 4
    assert "fallen to 0.5, expected 1 or more" in message
    assert f"The last good checkpoint is {checkpoint_path(tmp_path)}." in message
    assert message.endswith("train.mixed_precision=false or a train.lr below 0.002")
    assert torch.equal(next(model.student.parameters()), before)  # nothing was learned


def test_a_change_of_precision_on_the_way_is_said(
    pictures: list[Path], tmp_path: Path, scaled: Callable[[float], None]
) -> None:
    """As where a checkpoint of a GPU is gone on with on the CPU, and back."""
    told: list[str] = []

    def begin() -> None:
        with pytest.raises(KeyboardInterrupt):
            train_tiny(pictures, SHORT, checkpoints=tmp_path, tracker=Listener(interrupt_at=4))

    def go_on() -> None:
        train_tiny(pictures, SHORT, checkpoints=tmp_path, resume=True, tell=told.append)

    begin()
    scaled(8.0)
    go_on()
    (tmp_path / "last.safetensors").unlink()
    begin()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trainer, "GradScaler", GradScaler)
        go_on()
    half = "half precision (train.mixed_precision on CUDA)"
    assert [sentence.split(",")[0] for sentence in told] == [
        f"the training began in float32 and goes on in {half}",
        f"the training began in {half} and goes on in float32",
    ]


@needs_cuda
def test_half_precision_on_cuda_is_trained_and_resumed(
    pictures: list[Path], tmp_path: Path
) -> None:
    def on_cuda(folder: Path, **more: Any) -> tuple[ReverseDistillation, TrainingResult]:
        model = slim_model()
        how = {"tracker": NoTracker(), "steps": SilentSteps(), "checkpoints": folder} | more
        return model, train(model, pictures, SHORT, device=torch.device("cuda"), **how)

    model, result = on_cuda(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        on_cuda(tmp_path, tracker=Listener(interrupt_at=4))
    told: list[str] = []
    again, repeated = on_cuda(tmp_path, resume=True, tell=told.append)
    assert told == []
    assert result.losses[1] < result.losses[0]
    assert repeated.losses == pytest.approx(result.losses, rel=0.02)
    states = [scaler_of(folder, model, pictures) for folder in (tmp_path, tmp_path / "whole")]
    assert states[0] == states[1] and states[0]["scale"] >= 1
    for name, tensor in trained_parts(again).state_dict().items():
        assert tensor.device.type == "cuda" and bool(tensor.isfinite().all()), name
