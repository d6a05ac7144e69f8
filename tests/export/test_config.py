"""Settings of a fit: where they come from, and everything they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from patchline.export.config import METHOD_SCORES, FitSettings, load_settings, parse_size
from patchline.export.config_problems import dotted_names
from patchline.export.config_train import DISTILLATION, TrainSettings
from patchline.export.scores import SCORES
from patchline.runtime.byte_size import parse_bytes
from patchline.runtime.errors import ConfigurationError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "line.toml"
    path.write_text('backbone = "resnet18"\ncoreset_ratio = 0.1\nimage_size = [256, 320]\n')
    return path


class TestSources:
    def test_nothing_given_is_the_design(self) -> None:
        settings = load_settings(None, {})
        assert settings == FitSettings()
        assert settings.method == "patchcore-noising"
        assert settings.score_name == "noise-response"
        assert settings.backbone == "wide_resnet50_2"
        assert settings.weights is None
        assert settings.image_size == (256, 256)
        assert (settings.coreset_ratio, settings.neighbors, settings.seed) == (0.01, 9, 0)
        assert not settings.skip_unreadable

    def test_a_file_is_read(self, config: Path) -> None:
        settings = load_settings(config, {})
        assert (settings.backbone, settings.coreset_ratio) == ("resnet18", 0.1)
        assert (settings.model_size.height, settings.model_size.width) == (256, 320)
        assert settings.neighbors == 9

    def test_the_command_line_wins_and_none_does_not_count(self, config: Path) -> None:
        settings = load_settings(config, {"coreset_ratio": 0.2, "backbone": None, "seed": 0})
        assert (settings.coreset_ratio, settings.backbone) == (0.2, "resnet18")

    def test_a_method_brings_its_score_unless_told(self) -> None:
        assert load_settings(None, {"method": "patchcore"}).score_name == "patchcore"
        given = {"method": "patchcore", "score": "distance"}
        assert load_settings(None, given).score_name == "distance"

    def test_settings_do_not_change_afterwards(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            FitSettings().seed = 1  # type: ignore[misc]


class TestRefused:
    def test_all_errors_are_named_at_once(self, config: Path) -> None:
        config.write_text('coreset_ratio = 1.5\nneighbors = 0\nbackbones = "x"\nmethod = "magic"\n')
        with pytest.raises(ConfigurationError) as caught:
            load_settings(config, {"device": "tpu"})
        message = str(caught.value)
        assert message.startswith(str(config))
        for field in ("coreset_ratio", "neighbors", "backbones", "method", "device"):
            assert f"{field}: " in message

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("ratio = 0.1", "ratio: no such field, got 0.1"),
            ("track = 3", "track: no such field, got 3"),
            ("coreset-ratio = 0.1", "coreset-ratio: no such field (did you mean coreset_ratio?)"),
            ("neighbours = 3", "neighbours: no such field (did you mean neighbors?), got 3"),
            ("epochs = 3", "epochs: no such field (did you mean train.epochs?), got 3"),
            ("[train]\nlrr = 1", "train.lrr: no such field (did you mean train.lr?), got 1"),
            ("[train]\nseed = 1", "train.seed: no such field (did you mean seed?), got 1"),
            ("[backbone]\nname = 1", "backbone: input should be a valid string, got {'name': 1}"),
        ],
    )
    def test_unknown_field(self, config: Path, text: str, says: str) -> None:
        config.write_text(text)
        with pytest.raises(ConfigurationError) as caught:
            load_settings(config, {})
        assert f"line.toml: {says}" in str(caught.value)

    @pytest.mark.parametrize("text", ["coreset_ratio 0.1", "[", "a = 1\na = 2"])
    def test_bad_toml(self, config: Path, text: str) -> None:
        config.write_text(text)
        with pytest.raises(ConfigurationError, match=r"line.toml is no valid TOML"):
            load_settings(config, {})

    def test_bytes_that_are_no_text(self, config: Path) -> None:
        config.write_bytes(b"backbone = '\xff\xfe'")
        with pytest.raises(ConfigurationError, match=r"line.toml is no valid TOML"):
            load_settings(config, {})

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"cannot read .*none.toml: No such file"):
            load_settings(tmp_path / "none.toml", {})

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"cannot read .*: Is a directory"):
            load_settings(tmp_path, {})

    def test_an_unknown_score_lists_the_known_ones(self) -> None:
        known = "distance, patchcore, weighted-sum, noise-response"
        with pytest.raises(ConfigurationError, match=rf"score is 'best', expected one of: {known}"):
            load_settings(None, {"score": "best"})

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("coreset_ratio", 0.0),
            ("coreset_ratio", -0.1),
            ("coreset_ratio", 1.01),
            ("coreset_ratio", float("nan")),
            ("neighbors", 0),
            ("neighbors", 101),
            ("seed", -1),
            ("seed", 1 << 64),
            ("batch_size", 0),
            ("image_size", (31, 256)),
            ("image_size", (256, 4097)),
            ("image_size", (256,)),
            ("memory_budget_bytes", 1000),
            ("false_alarm_rate", 0.0),
            ("false_alarm_rate", 0.51),
            ("false_alarm_rate", float("nan")),
            ("calibration_split", 0.0),
            ("calibration_split", 1.0),
            ("method", "reverse"),
            ("device", "gpu"),
        ],
    )
    def test_values_outside_their_range(self, field: str, value: Any) -> None:
        with pytest.raises(ConfigurationError, match=rf"^{field}.*got "):
            load_settings(None, {field: value})

    @pytest.mark.parametrize(
        ("field", "value"), [("coreset_ratio", 1.0), ("neighbors", 100), ("image_size", (32, 4096))]
    )
    def test_the_ends_of_the_ranges_are_inside(self, field: str, value: Any) -> None:
        assert getattr(load_settings(None, {field: value}), field) == value


TRAINED = {"method": DISTILLATION}


class TestTraining:
    def test_the_defaults_are_the_papers(self) -> None:
        settings = load_settings(None, TRAINED)
        assert settings.train == TrainSettings()
        assert settings.train.model_dump() == {
            "epochs": 100,
            "batch_size": 8,
            "lr": None,
            "betas": (0.9, 0.999),
            "weight_decay": 1e-4,
            "warmup_epochs": 5,
            "decay_at": 0.8,
            "decay_factor": 0.1,
            "mixed_precision": True,
            "noise": False,
            "noise_min": 0.01,
            "noise_max": 0.3,
            "noise_warmup_epochs": 10,
            "noise_coreset_ratio": 0.01,
            "checkpoint_every": 10,
            "evaluate_every": 10,
            "width_per_group": None,
        }

    @pytest.mark.parametrize(
        ("given", "rate"),
        [({}, 0.005), ({"batch_size": 16}, 0.01), ({"batch_size": 16, "lr": 0.002}, 0.002)],
    )
    def test_the_learning_rate_follows_the_batch(self, given: Any, rate: float) -> None:
        settings = load_settings(None, TRAINED | {"train": given})
        assert settings.train.learning_rate == pytest.approx(rate)

    def test_a_fifth_is_held_out_unless_told(self) -> None:
        assert load_settings(None, TRAINED).held_out_share == 0.2
        assert load_settings(None, TRAINED | {"calibration_split": 0.3}).held_out_share == 0.3
        assert load_settings(None, {}).held_out_share is None
        assert load_settings(None, {"calibration_split": 0.3}).held_out_share == 0.3

    def test_the_score_is_the_methods_own_and_no_banks(self) -> None:
        assert load_settings(None, TRAINED).score_name == "cosine" == METHOD_SCORES[DISTILLATION]
        assert "cosine" not in SCORES

    def test_a_table_of_a_file_and_options(self, config: Path) -> None:
        config.write_text(f'method = "{DISTILLATION}"\n[train]\nepochs = 20\nlr = 1\n')
        settings = load_settings(config, {"train": {"epochs": 30, "betas": [0.5, 0.9]}})
        assert settings.train == TrainSettings(epochs=30, lr=1, betas=(0.5, 0.9))

    def test_all_names(self) -> None:
        names = list(dotted_names(FitSettings))
        assert "train.lr" in names and "train" in names and "seed" in names
        assert len(names) == len(FitSettings.model_fields) + len(TrainSettings.model_fields)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("epochs", 0),
            ("epochs", 1.5),
            ("epochs", True),
            ("epochs", "3"),
            ("batch_size", 0),
            ("lr", 0),
            ("lr", -0.1),
            ("lr", float("nan")),
            ("lr", float("inf")),
            ("lr", "fast"),
            ("betas", [0.9]),
            ("betas", [0.9, 1.0]),
            ("betas", 0.9),
            ("weight_decay", -1e-4),
            ("warmup_epochs", -1),
            ("decay_at", 0.0),
            ("decay_at", 1.1),
            ("decay_factor", 0.0),
            ("mixed_precision", 1),
            ("noise", "yes"),
            ("noise_min", -0.1),
            ("noise_max", float("inf")),
            ("noise_warmup_epochs", -1),
            ("noise_coreset_ratio", 0.0),
            ("checkpoint_every", 0),
            ("width_per_group", 0),
        ],
    )
    def test_values_outside_their_range(self, field: str, value: Any) -> None:
        with pytest.raises(ConfigurationError, match=rf"^train\.{field}.*got "):
            load_settings(None, TRAINED | {"train": {field: value}})

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"train": 3}, "train: input should be a valid dictionary or instance"),
            ({"train": {"noise_min": 0.4}}, "train: noise_min 0.4 lies above noise_max 0.3"),
            ({"score": "distance"}, "score cannot be chosen"),
            ({"score": "cosine"}, "score cannot be chosen"),
            ({"neighbors": 9}, "neighbors is of a memory bank, and reverse-distillation has none"),
            ({"coreset_ratio": 0.1, "search": "exact"}, "coreset_ratio and search are of a memory"),
            ({"bank": "external"}, "bank is of a memory bank"),
            ({"bank": "external"}, "there is no bank"),
            ({"bank": "embedded"}, "there is no bank"),
            ({"precision": "int8"}, "precision is 'int8', and reverse-distillation is exported in"),
            (
                {"train": {"epochs": 5}},
                "train.warmup_epochs is 5, and the learning rate falls again after 4 of 5 epochs",
            ),
            (
                {"train": {"epochs": 9, "noise": True}},
                "train.noise_warmup_epochs is 10, so that the noise would never be whole in 9",
            ),
        ],
    )
    def test_what_it_has_no_use_for(self, given: Any, says: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load_settings(None, TRAINED | given)
        assert says in str(caught.value)

    @pytest.mark.parametrize(
        "given",
        [
            {"precision": "fp32"},
            {"precision": "fp16"},
            {"train": {"noise_min": 0.3}},
            {"train": {"epochs": 1, "warmup_epochs": 0}},
            {"train": {"epochs": 10, "warmup_epochs": 8}},
            {"train": {"epochs": 6}},  # it falls after 4.8 of them, rounded up as in the training
            {"train": {"epochs": 10, "noise": True}},
            {"train": {"epochs": 9, "noise_warmup_epochs": 20}},
        ],
    )
    def test_what_is_only_just_right(self, given: Any) -> None:
        load_settings(None, TRAINED | given)

    @pytest.mark.parametrize("method", [{}, {"method": "patchcore"}])
    @pytest.mark.parametrize(
        ("table", "named"),
        [({"lr": 1.0}, "train.lr is"), ({"lr": 1.0, "epochs": 3}, "train.lr and train.epochs are")],
    )
    def test_other_methods_have_no_training(self, method: Any, table: Any, named: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load_settings(None, method | {"train": table})
        assert str(caught.value).startswith(
            f"{named} of a training, which only reverse-distillation has"
        )

    def test_an_empty_table_is_named_too(self) -> None:
        with pytest.raises(ConfigurationError, match=r"^train is of a training"):
            load_settings(None, {"train": {}})

    def test_all_errors_are_named_at_once(self, config: Path) -> None:
        config.write_text(
            f'method = "{DISTILLATION}"\nneighbors = 3\nbackbones = "x"\n[train]\nlr = "fast"\n'
            "lrr = 1\nepochs = 0\n"
        )
        with pytest.raises(ConfigurationError) as caught:
            load_settings(config, {"train": {"batch_size": True}, "score": "distance"})
        for words in (
            "train.lr: input should be a valid number, got 'fast'",
            "train.lrr: no such field",
            "train.epochs: ",
            "train.batch_size: ",
            "backbones: no such field (did you mean backbone?)",
            "score cannot be chosen",
            "neighbors is of a memory bank",
        ):
            assert words in str(caught.value)


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "size"),
        [("256", (256, 256)), ("256x320", (256, 320)), (" 64X96 ", (64, 96))],
    )
    def test_height_comes_first(self, text: str, size: tuple[int, int]) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize(
        "text", ["", "x", "256x", "x256", "256,320", "256x320x3", "-256", "25.6", "1e3", "9" * 5000]
    )
    def test_other_forms_are_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"expected 256 or 256x320 \(height x width\)"):
            parse_size(text)


class TestBytes:
    @pytest.mark.parametrize(
        ("text", "size_bytes"),
        [
            ("1048576", 1 << 20),
            ("4G", 4 << 30),
            ("4g", 4 << 30),
            ("512M", 512 << 20),
            ("512MB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("2 T", 2 << 40),
            (" 64K ", 64 << 10),
            ("100B", 100),
        ],
    )
    def test_units(self, text: str, size_bytes: int) -> None:
        assert parse_bytes(text) == size_bytes

    @pytest.mark.parametrize(
        "text", ["", "G", "-4G", "4X", "4GG", "1.5.5G", "1e9", "inf", "nan", "4 G B", "9" * 400]
    )
    def test_other_forms_are_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"expected for example 4G or 512M"):
            parse_bytes(text)
