"""Growing a model: old rows stay, new ones join, everything is counted, mistakes are named."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchline.calibration.threshold import derive_threshold
from patchline.export.cli import export_model as command
from patchline.export.config import FitSettings
from patchline.export.coreset import coreset_size, random_projection
from patchline.export.datasets import digest_of, good_pictures
from patchline.export.detector import AnomalyHead
from patchline.export.exporter import export_model
from patchline.export.extend import load_base, pictures_to_add, settings_of
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel, fit
from patchline.export.state import TrainingState, load_state
from patchline.runtime.contract import load_manifest
from patchline.runtime.engine import open_engine
from patchline.runtime.errors import ConfigurationError, DataError, ModelError, WeightsError
from patchline.runtime.progress import SilentSteps

from .drawn import CLASS_NAME, QUICK, quick_fit, refuse, write_good

PATCHES, OLD, NEW = 64, 12, 6


@pytest.fixture(scope="module")
def base(exported: Path) -> TrainingState:
    return load_state(exported.with_suffix(".safetensors"))


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six further good parts."""
    folder = tmp_path_factory.mktemp("more")
    write_good(folder, NEW, first_seed=4000)
    return folder


@pytest.fixture(scope="module")
def extended(base: TrainingState, added: Path) -> FittedModel:
    pictures, _ = pictures_to_add(added, base)
    return fit(pictures, settings_of(base, {"device": "cpu"}), SilentSteps(), refuse, base)


def embed(model: FittedModel, paths: tuple[Path, ...]) -> torch.Tensor:
    with torch.inference_mode():
        frames = torch.from_numpy(read_frames(paths, QUICK.model_size))
        return model.detector.embedder(frames).flatten(0, 2)


class TestBank:
    def test_the_old_rows_stay_and_the_farthest_new_ones_follow(
        self, base: TrainingState, extended: FittedModel, added: Path
    ) -> None:
        """The greedy by brute force, over the new rows only."""
        old, bank = base.memory_bank, extended.memory_bank
        size = coreset_size((OLD + NEW) * PATCHES, QUICK.coreset_ratio)
        assert len(bank) == size > len(old)
        assert torch.equal(bank[: len(old)], old)
        new = embed(extended, tuple(sorted(added.iterdir())))
        matrix = random_projection(old.shape[1], QUICK.seed)
        assert matrix is not None
        rows, centers = (new @ matrix).double(), (old @ matrix).double()
        nearest = torch.cdist(rows, centers).amin(1)
        picked = []
        for _ in range(size - len(old)):
            picked.append(int(nearest.argmax()))
            nearest = torch.minimum(nearest, (rows - rows[picked[-1]]).norm(dim=1))
        assert torch.allclose(bank[len(old) :], new[picked], atol=1e-5)

    def test_a_part_of_the_new_pictures_scores_lower_than_before(
        self, base: TrainingState, extended: FittedModel, fitted: FittedModel, added: Path
    ) -> None:
        frames = torch.from_numpy(read_frames(tuple(added.iterdir()), QUICK.model_size))
        before, after = (model.detector.predict(frames)[0] for model in (fitted, extended))
        assert (after < before).all()

    def test_it_is_the_same_twice(self, base: TrainingState, extended: FittedModel) -> None:
        again = fit(
            extended.pictures, settings_of(base, {"device": "cpu"}), SilentSteps(), refuse, base
        )
        assert torch.equal(again.memory_bank, extended.memory_bank)
        assert again.normal == extended.normal


class TestScores:
    def test_what_the_score_depends_on_is_kept(
        self, base: TrainingState, extended: FittedModel
    ) -> None:
        assert extended.statistics == base.manifest.distance_statistics
        assert extended.detector.head.search.k == base.manifest.memory_bank.neighbors

    def test_old_and_new_scores_are_pooled(
        self, base: TrainingState, extended: FittedModel
    ) -> None:
        before, after = base.manifest.normal_scores, extended.normal
        assert len(after.scores) == OLD + NEW
        assert set(before.scores) < set(after.scores)
        assert extended.threshold == derive_threshold(after, 0.05)

    def test_a_single_new_picture_is_judged_by_the_old_bank(
        self, base: TrainingState, fitted: FittedModel, tmp_path: Path
    ) -> None:
        path = write_good(tmp_path, 1, first_seed=5000)[0]
        one = fit(
            pictures_to_add(tmp_path, base)[0],
            settings_of(base, {"device": "cpu"}),
            SilentSteps(),
            refuse,
            base,
        )
        new = set(one.normal.scores) - set(base.manifest.normal_scores.scores)
        # The fold's bank is the old one, as far as it goes: 7 further rows would be its own.
        head = AnomalyHead(
            base.memory_bank,
            base.manifest.distance_statistics,
            fitted.detector.embedder.grid,
            QUICK.model_size,
            score=QUICK.score_name,
            neighbors=9,
        )
        expected = head(embed(fitted, (path,)).view(1, 8, 8, -1))[0]
        assert list(new) == [pytest.approx(float(expected), rel=1e-5)]

    def test_a_model_with_a_calibration_split_keeps_it(
        self, drawn_data: Path, added: Path, tmp_path: Path
    ) -> None:
        split = quick_fit(drawn_data, calibration_split=0.25)
        settings = FitSettings(**(QUICK.model_dump() | {"calibration_split": 0.25}))
        path = export_model(split, settings, tmp_path, SilentSteps())
        state = load_state(path.with_suffix(".safetensors"))
        grown_settings = settings_of(state, {"device": "cpu"})
        assert grown_settings.calibration_split == pytest.approx(0.25)
        grown = fit(pictures_to_add(added, state)[0], grown_settings, SilentSteps(), refuse, state)
        assert grown.training_set.calibration_images == 3 + 2
        assert len(grown.normal.scores) == 5 and grown.normal.source == "calibration-split"
        rows = coreset_size((9 + 4) * PATCHES, QUICK.coreset_ratio)
        assert len(grown.memory_bank) == rows
        # Too few to split: all of them enter the bank, and the scores stay those there were.
        write_good(tmp_path / "one", 1, first_seed=7000)
        one = fit(
            pictures_to_add(tmp_path / "one", state)[0],
            grown_settings,
            SilentSteps(),
            refuse,
            state,
        )
        assert one.normal == state.manifest.normal_scores
        assert (one.training_set.images, one.training_set.calibration_images) == (13, 3)
        assert len(one.memory_bank) == coreset_size(10 * PATCHES, QUICK.coreset_ratio)

    def test_scores_had_in_two_ways_are_called_mixed(
        self, base: TrainingState, added: Path
    ) -> None:
        settings = settings_of(base, {"device": "cpu", "calibration_split": 0.5})
        mixed = fit(pictures_to_add(added, base)[0], settings, SilentSteps(), refuse, base)
        assert mixed.normal.source == "mixed"
        assert len(mixed.normal.scores) == OLD + 3


class TestRecord:
    def test_the_manifest_counts_both(
        self, base: TrainingState, extended: FittedModel, added: Path, drawn_data: Path
    ) -> None:
        training = extended.training_set
        assert training.images == OLD + NEW
        assert [part.images for part in training.parts] == [OLD, NEW]
        assert [part.sha256 for part in training.parts] == [
            digest_of(good_pictures(drawn_data, CLASS_NAME).paths),
            digest_of(tuple(sorted(added.iterdir()))),
        ]
        assert training.sha256 not in {part.sha256 for part in training.parts}

    def test_a_second_extension_is_a_third_part(
        self, extended: FittedModel, tmp_path: Path
    ) -> None:
        path = export_model(extended, QUICK, tmp_path / "models", SilentSteps())
        state = load_state(path.with_suffix(".safetensors"))
        write_good(tmp_path / "third", 2, first_seed=6000)
        again = fit(
            pictures_to_add(tmp_path / "third", state)[0],
            settings_of(state, {"device": "cpu"}),
            SilentSteps(),
            refuse,
            state,
        )
        assert [part.images for part in again.training_set.parts] == [OLD, NEW, 2]
        assert torch.equal(again.memory_bank[: len(state.memory_bank)], state.memory_bank)

    def test_pictures_that_it_has_already_are_refused(
        self, base: TrainingState, drawn_data: Path
    ) -> None:
        with pytest.raises(DataError, match=r"all 12 pictures of .* are in gasket already"):
            pictures_to_add(drawn_data / CLASS_NAME, base)

    def test_pictures_that_it_has_are_left_out_of_a_folder_of_both(
        self, base: TrainingState, drawn_data: Path, added: Path, tmp_path: Path
    ) -> None:
        for folder in (drawn_data / CLASS_NAME / "train" / "good", added):
            for path in folder.iterdir():
                shutil.copy(path, tmp_path / f"{folder.name}-{path.name}")
        pictures, known = pictures_to_add(tmp_path, base)
        assert known == OLD
        assert [path.name for path in pictures.paths] == [
            f"{added.name}-{path.name}" for path in sorted(added.iterdir())
        ]

    def test_a_part_of_the_pictures_it_has_is_refused(
        self, base: TrainingState, drawn_data: Path, tmp_path: Path
    ) -> None:
        shutil.copy(drawn_data / CLASS_NAME / "train" / "good" / "003.png", tmp_path)
        with pytest.raises(DataError, match=r"all 1 pictures of .* are in gasket already"):
            pictures_to_add(tmp_path, base)

    def test_no_pictures(self, base: TrainingState, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="holds no png"):
            pictures_to_add(tmp_path, base)
        with pytest.raises(DataError, match="does not exist"):
            pictures_to_add(tmp_path / "nowhere", base)


class TestSettings:
    def test_everything_comes_from_the_model(self, base: TrainingState) -> None:
        found = settings_of(base, {"device": "cpu"})
        assert found == QUICK.model_copy(update={"score": "noise-response"})

    def test_what_is_said_again_is_no_contradiction(self, base: TrainingState) -> None:
        said = {"backbone": "resnet18", "image_size": (64, 64), "weights": "random"}
        assert settings_of(base, said).image_size == (64, 64)

    def test_all_contradictions_are_named(self, base: TrainingState) -> None:
        with pytest.raises(ConfigurationError) as error:
            settings_of(base, {"neighbors": 5, "score": "distance", "image_size": (96, 96)})
        for words in ("neighbors is 5, the model has 9", "score is 'distance'", "image_size is"):
            assert words in str(error.value)

    def test_a_weights_file_must_be_given_again(self, base: TrainingState) -> None:
        backbone = base.manifest.backbone.model_copy(update={"weights_source": "own.pth"})
        manifest = base.manifest.model_copy(update={"backbone": backbone})
        state = TrainingState(base.memory_bank, manifest)
        with pytest.raises(ConfigurationError, match=r"own\.pth: give it again with --weights"):
            settings_of(state, {})
        assert settings_of(state, {"weights": "moved.pth"}).weights == "moved.pth"

    def test_other_weights_are_refused_before_any_work(
        self, base: TrainingState, added: Path
    ) -> None:
        backbone = base.manifest.backbone.model_copy(update={"weights_sha256": "a" * 64})
        state = TrainingState(
            base.memory_bank, base.manifest.model_copy(update={"backbone": backbone})
        )
        with pytest.raises(WeightsError, match="Give --weights the same file"):
            fit(
                pictures_to_add(added, state)[0],
                settings_of(state, {"device": "cpu"}),
                SilentSteps(),
                refuse,
                state,
            )

    def test_no_model_to_extend(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="Fit the class first"):
            load_base(tmp_path, CLASS_NAME)

    def test_a_state_under_another_name(self, model: Path) -> None:
        state = model.with_suffix(".safetensors")
        state.rename(state.with_name("lid.safetensors"))
        with pytest.raises(ConfigurationError, match="holds the class gasket, not lid"):
            load_base(model.parent, "lid")

    def test_a_damaged_state(self, model: Path) -> None:
        state = model.with_suffix(".safetensors")
        state.write_bytes(state.read_bytes()[:-10])
        with pytest.raises(ModelError, match="cannot read"):
            load_base(model.parent, CLASS_NAME)


@dataclass(frozen=True)
class Finished:
    status: int
    stdout: str
    stderr: str


class TestCommand:
    @pytest.fixture
    def call(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        def run(*words: object) -> Finished:
            monkeypatch.setattr(sys, "argv", ["export-model", *map(str, words)])
            with pytest.raises(SystemExit) as left:
                command.main()
            captured = capsys.readouterr()
            return Finished(int(left.value.code or 0), captured.out, captured.err)

        return run

    def test_a_model_grows_without_its_pictures(self, call: Any, model: Path, added: Path) -> None:
        before = load_manifest(model.with_suffix(".json"))
        done = call(
            "--cls", CLASS_NAME, "--extend", added, "--out", model.parent, "--device", "cpu",
            "--false-alarm-rate", "0.1", "--json",
        )  # fmt: skip
        assert done.status == 0, done.stderr
        after = json.loads(done.stdout)
        assert after["training_set"]["images"] == OLD + NEW
        assert after["threshold"]["false_alarm_rate"] == 0.1
        assert after["memory_bank"]["rows"] > before.memory_bank.rows
        with open_engine(model) as engine:
            assert engine.manifest.training_set.images == OLD + NEW
            engine.infer(np.zeros((1, 64, 64, 3), np.uint8))

    def test_the_table_shows_the_sum(self, call: Any, model: Path, added: Path) -> None:
        done = call("--cls", CLASS_NAME, "--extend", added, "--out", model.parent)
        assert done.status == 0, done.stderr
        assert "18 = 12 + 6" in done.stdout

    def test_data_is_said_not_to_be_read(self, call: Any, model: Path, added: Path) -> None:
        done = call(
            "--cls", CLASS_NAME, "--extend", added, "--out", model.parent, "--data", "/nowhere"
        )
        assert done.status == 0 and "--data /nowhere is not read" in done.stderr

    def test_a_threshold_of_the_line_is_not_thrown_away_in_silence(
        self, call: Any, model: Path, added: Path
    ) -> None:
        path = model.with_suffix(".json")
        before = load_manifest(path)
        line = derive_threshold(before.normal_scores.model_copy(update={"source": "line"}), 0.2)
        before.model_copy(update={"threshold": line}).save(path)
        done = call("--cls", CLASS_NAME, "--extend", added, "--out", model.parent)
        assert done.status == 0, done.stderr
        assert f"the threshold {line.value:.4g}" in done.stderr
        assert "Calibrate again" in done.stderr
        assert load_manifest(path).threshold.false_alarm_rate == 0.2  # the rate is kept

    def test_an_unchanged_threshold_needs_no_word(
        self, call: Any, model: Path, added: Path
    ) -> None:
        done = call("--cls", CLASS_NAME, "--extend", added, "--out", model.parent)
        assert "Calibrate again" not in done.stderr

    def test_known_pictures_are_said_to_be_left_out(
        self, call: Any, model: Path, added: Path, drawn_data: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(added, tmp_path / "both")
        known = drawn_data / CLASS_NAME / "train" / "good" / "000.png"
        shutil.copy(known, tmp_path / "both" / "old.png")
        done = call("--cls", CLASS_NAME, "--extend", tmp_path / "both", "--out", model.parent)
        assert "1 pictures of" in done.stderr and "in the model already" in done.stderr
        assert "18 = 12 + 6" in done.stdout

    def test_one_class_at_a_time(self, call: Any, model: Path, added: Path) -> None:
        done = call("--cls", CLASS_NAME, "lid", "--extend", added, "--out", model.parent)
        assert done.status == 1 and "Extend them one by one" in done.stderr

    def test_a_failure_leaves_the_model_as_it_was(
        self, call: Any, model: Path, tmp_path: Path
    ) -> None:
        files = {path.name: path.read_bytes() for path in model.parent.iterdir()}
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "1.png").write_bytes(b"broken")
        done = call("--cls", CLASS_NAME, "--extend", tmp_path / "new", "--out", model.parent)
        assert done.status == 1 and "1.png" in done.stderr
        assert {path.name: path.read_bytes() for path in model.parent.iterdir()} == files
