"""``export-model --method reverse-distillation``: presets, ``--set``, ``--resume``, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patchline.export.cli import export_classes
from patchline.export.config import FitSettings
from patchline.export.config_train import DISTILLATION, TrainSettings
from patchline.export.distillation import exporter, fit
from patchline.export.distillation.checkpoint import checkpoint_path
from patchline.export.distillation.validation import Validation
from patchline.export.presets import preset_names
from patchline.export.tracking import create
from patchline.runtime.contract import load_manifest
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.files import write_atomically
from tests.commands import Call

from .drawn import CLASS_NAME
from .recorder import Recorder

TRAINED = ("--cls", CLASS_NAME, "--method", DISTILLATION)
CHECKPOINT = checkpoint_path(Path("models") / "checkpoints" / CLASS_NAME)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[FitSettings]:
    """Settings of what would be exported. Nothing is."""
    seen: list[FitSettings] = []
    monkeypatch.setattr(
        export_classes, "export_class", lambda job, *rest: seen.append(job.settings)
    )
    return seen


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path, bool]]:
    """What would be trained: class, folder of the checkpoint, whether it goes on. Each fails."""
    seen: list[tuple[str, Path, bool]] = []

    def record(pictures: Any, *rest: Any, checkpoints: Path, resume: bool, **options: Any) -> None:
        seen.append((pictures.class_name, checkpoints, resume))
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "fit_distillation", record)
    return seen


class TestSettings:
    def test_a_preset_options_and_overrides(self, call: Call, settings: list[FitSettings]) -> None:
        words = ("--config", "rd_256_300e", "--backbone", "resnet18", "--noise", "--epochs", "50")
        more = ("--set", "train.lr=0.002", "--set", "train.betas=[0.5, 0.9]", "--set", "seed=3")
        finished = call("--cls", CLASS_NAME, *words, *more)
        assert finished.status == 0, finished.stderr
        assert settings == [
            FitSettings(
                method=DISTILLATION,
                backbone="resnet18",
                seed=3,
                train=TrainSettings(
                    epochs=50, warmup_epochs=10, lr=0.002, betas=(0.5, 0.9), noise=True
                ),
            )
        ]

    def test_a_table_of_a_file(self, call: Call, settings: list[FitSettings]) -> None:
        text = f'method = "{DISTILLATION}"\n[train]\nepochs = 20\nnoise_max = 0.2\n'
        Path("line.toml").write_text(text)
        assert (
            call("--cls", CLASS_NAME, "--config", "line.toml", "--set", "train.epochs=30").status
            == 0
        )
        assert settings[0].train == TrainSettings(epochs=30, noise_max=0.2)

    def test_an_option_and_an_override_that_agree(
        self, call: Call, settings: list[FitSettings]
    ) -> None:
        words = ("--seed", "3", "--image-size", "64x96", "--method", "patchcore")
        same = ("--set", "seed=3", "--set", "image_size=[64, 96]", "--set", "method=patchcore")
        assert call("--cls", CLASS_NAME, *words, *same).status == 0
        assert (settings[0].seed, settings[0].image_size) == (3, (64, 96))

    def test_help_names_the_presets(self, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "400")
        shown = call("--help").stdout
        for name in preset_names():
            assert name in shown


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--set", "train.lrr=1"), "train.lrr: no such field (did you mean train.lr?), got 1"),
            (("--set", "train.lr=fast"), "train.lr: input should be a valid number, got 'fast'"),
            (("--set", "train=3"), "train: input should be a valid dictionary"),
            (("--set", "train.lr"), "--set is 'train.lr', expected NAME=VALUE"),
            (("--set", "train.lr="), "--set train.lr= has no value"),
            (("--set", "train.betas=[1"), "--set train.betas=[1 is no TOML value"),
            (("--seed", "3", "--set", "seed=4"), "seed is given as 3 and as 4: leave one of them"),
            (("--epochs", "3", "--set", "train.epochs=4"), "train.epochs is given as 3 and as 4"),
            (
                ("--noise", "--set", "train.noise=false"),
                "train.noise is given as True and as False",
            ),
            (("--epochs", "3"), "train.warmup_epochs is 5, and the learning rate falls again"),
            (("--epochs", "0"), "train.epochs: input should be greater than or equal to 1"),
            (("--set", "train.noise_max=0.5"), "train.noise_max would do nothing"),
            (("--config", "rd_256"), "no preset has that name. Did you mean rd_256_"),
            (
                ("--config", "rd_256_100e", "--method", "patchcore"),
                "train.epochs, train.batch_size",
            ),
            (("--config", "patchcore_256"), "coreset_ratio and neighbors are of a memory bank"),
            (("--score", "distance"), "score cannot be chosen"),
            (("--neighbors", "5"), "neighbors is of a memory bank"),
            (("--coreset-ratio", "0.1"), "coreset_ratio is of a memory bank"),
            (("--bank", "external"), "there is no bank"),
            (("--search", "exact"), "search is of a memory bank"),
            (("--precision", "int8"), "precision is 'int8'"),
            (("--state", "models"), "--state makes a model with a memory bank again"),
            (("--extend", "data/lids"), "--extend adds pictures to a memory bank"),
            (("--resume",), "there is no checkpoint to go on from in models/checkpoints/gasket"),
            (("--backbone", "resnet34"), "resnet34"),
        ],
    )
    def test_one_sentence(self, call: Call, words: tuple[str, ...], says: str) -> None:
        rest = words if "--method" in words else ("--method", DISTILLATION, *words)
        finished = call("--cls", CLASS_NAME, *rest)
        assert finished.status == 1 and says in finished.sentence
        assert finished.stdout == ""
        assert not list(Path("models").glob("*.onnx"))

    def test_a_file_a_preset_and_overrides_at_once(self, call: Call) -> None:
        Path("line.toml").write_text("epoch = 3\n[train]\nlr = -1\n")
        finished = call(*TRAINED, "--config", "line.toml", "--set", "train.wamup_epochs=3")
        for says in ("epoch: no such field", "train.lr: ", "train.wamup_epochs: no such field"):
            assert says in finished.sentence

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--noise",), "train.noise is of a training, which only reverse-distillation has"),
            (("--epochs", "3"), "train.epochs is of a training"),
            (("--set", "train.lr=1"), "train.lr is of a training"),
            (("--resume",), "--resume goes on with a training, and patchcore has none"),
            (("--resume", "--extend", "data/lids"), "--resume goes on with a training, and --ext"),
        ],
    )
    def test_other_methods_are_not_trained(
        self, call: Call, words: tuple[str, ...], says: str
    ) -> None:
        finished = call("--cls", CLASS_NAME, "--method", "patchcore", *words)
        assert finished.status == 1 and says in finished.sentence

    @pytest.mark.parametrize("words", [("--epochs", "many"), ("--set",), ("--track", "mlflow")])
    def test_wrong_usage(self, call: Call, words: tuple[str, ...]) -> None:
        assert call("--cls", CLASS_NAME, *words).status == 2


class TestResume:
    def test_from_the_checkpoint_of_each_class(
        self, call: Call, trainings: list[tuple[str, Path, bool]]
    ) -> None:
        CHECKPOINT.parent.mkdir(parents=True)
        CHECKPOINT.write_bytes(b"")
        finished = call(*TRAINED, "--resume")
        assert finished.status == 130
        assert trainings == [(CLASS_NAME, CHECKPOINT.parent, True)]
        assert f"go on with --resume from its checkpoint {CHECKPOINT.parent}" in finished.stderr

    def test_a_class_without_one_is_trained_from_the_start(
        self, call: Call, trainings: list[tuple[str, Path, bool]]
    ) -> None:
        CHECKPOINT.parent.mkdir(parents=True)
        CHECKPOINT.write_bytes(b"")
        finished = call("--cls", "lids", CLASS_NAME, "--method", DISTILLATION, "--resume")
        assert trainings == [("lids", CHECKPOINT.parent.with_name("lids"), False)]
        assert "lids has no checkpoint in models/checkpoints/lids" in finished.stderr

    def test_a_new_training_does_not_go_on(
        self, call: Call, trainings: list[tuple[str, Path, bool]]
    ) -> None:
        CHECKPOINT.parent.mkdir(parents=True)
        CHECKPOINT.write_bytes(b"")
        finished = call(*TRAINED)
        assert finished.status == 130
        assert trainings == [(CLASS_NAME, CHECKPOINT.parent, False)]
        assert (
            f"the earlier checkpoint in {CHECKPOINT.parent} is kept as last.before."
            in finished.stderr
        )
        assert "press Ctrl-C in the first epoch and add --resume" in finished.stderr
        assert (
            f"this training wrote no checkpoint: the one in {CHECKPOINT.parent} is still that of "
            "the earlier training" in finished.stderr
        )
        assert "its checkpoint" not in finished.stderr

    def test_a_new_training_that_was_interrupted_later(
        self, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*given: Any, checkpoints: Path, **options: Any) -> None:
            write_atomically(checkpoint_path(checkpoints), b"of this training")
            raise KeyboardInterrupt

        CHECKPOINT.parent.mkdir(parents=True)
        CHECKPOINT.write_bytes(b"of an earlier one")
        monkeypatch.setattr(fit, "fit_distillation", interrupted)
        finished = call(*TRAINED)
        assert finished.status == 130
        assert f"go on with --resume from its checkpoint {CHECKPOINT.parent}" in finished.stderr

    def test_interrupted_before_there_is_one(
        self, call: Call, trainings: list[tuple[str, Path, bool]]
    ) -> None:
        finished = call(*TRAINED)
        assert (finished.status, finished.sentence) == (130, "error: interrupted")
        assert "--resume" not in finished.stderr and len(trainings) == 1
        assert "earlier checkpoint" not in finished.stderr


def test_trained_exported_interrupted_resumed(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = (
        *(*TRAINED, "--backbone", "resnet18", "--weights", "random", "--image-size", "32"),
        *("--epochs", "2", "--set", "train.warmup_epochs=0", "--device", "cpu", "--json"),
        *("--track", "tensorboard", "--set", "train.evaluate_every=1"),
    )
    runs: list[Recorder] = []

    def make(settings: Any, run_name: str) -> Recorder:
        runs.append(Recorder(settings, run_name))
        return runs[-1]

    def interrupt(*rest: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(create, "create_tracker", make)
    with monkeypatch.context() as patched:
        patched.setattr(exporter, "export_distilled", interrupt)
        finished = call(*words)
    assert finished.status == 130
    assert not list(Path("models").glob("*.*"))
    finished = call(*words, "--resume")
    assert finished.status == 0, finished.stderr
    assert "trained from the start" not in finished.stderr
    (line,) = finished.lines
    manifest = load_manifest(Path("models") / f"{CLASS_NAME}.json")
    assert line | json.loads(manifest.to_json()) == line
    assert (manifest.method, manifest.score) == (DISTILLATION, "cosine")
    assert manifest.distillation is not None and manifest.distillation.epochs == 2
    assert CHECKPOINT.is_file()  # of all epochs: what follows can be had again without them
    with open_engine(Path(line["model"])) as engine:
        assert engine.manifest == manifest

    # The last epoch is judged by the exported file, and by nothing else.
    auroc, fixed = f"metrics/{CLASS_NAME}/image_auroc", f"examples/{CLASS_NAME}/fixed"
    training, resumed = runs
    assert [step for step, _ in training.history(auroc)] == [1]
    assert training.shown == [(1, fixed)] and training.status == "interrupted"
    assert [step for step, _ in resumed.history(auroc)] == [2]
    assert resumed.shown == [(2, f"examples/{CLASS_NAME}"), (2, fixed)]
    assert list(resumed.pictures[fixed]) == list(training.pictures[fixed])
    ((_, metadata),) = resumed.models
    assert metadata["epoch"] == 2
    assert resumed.history(auroc) == [(2, metadata["image_auroc"])]
    assert resumed.results[f"metrics/best/{CLASS_NAME}/image_auroc"] == metadata["image_auroc"]
    assert {"time/fit_s", "time/whole_s", "threshold"} <= resumed.results.keys()


class TestValidation:
    def given(self, call: Call, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[Any, str]:
        """What would judge the test pictures during the training, and what was told."""
        seen: list[Any] = []

        def record(*rest: Any, validate: Any, **options: Any) -> None:
            seen.append(validate)
            raise ConfigurationError("enough")

        monkeypatch.setattr(fit, "fit_distillation", record)
        monkeypatch.setattr(create, "create_tracker", Recorder)
        finished = call("--method", DISTILLATION, *words)
        assert finished.status == 1 and "enough" in finished.stderr
        (found,) = seen
        return found, finished.stderr

    def test_where_it_is_tracked_and_there_are_test_pictures(
        self, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tracked = ("--track", "tensorboard")
        found, told = self.given(call, monkeypatch, "--cls", CLASS_NAME, *tracked)
        assert isinstance(found, Validation) and "evaluated" not in told
        assert self.given(call, monkeypatch, "--cls", "lids", *tracked)[0] is None
        assert self.given(call, monkeypatch, "--cls", CLASS_NAME)[0] is None

    def test_what_cannot_be_judged_is_a_warning(
        self, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (Path("data") / CLASS_NAME / "test" / "chip" / "000.png").write_bytes(b"broken")
        found, told = self.given(call, monkeypatch, "--cls", CLASS_NAME, "--track", "wandb")
        assert found is None
        assert f"warning: {CLASS_NAME} is not evaluated during its training: cannot read" in told
