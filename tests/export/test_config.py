"""Settings of a fit: where they come from, and everything they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from patchline.export.config import FitSettings, load_settings, parse_size
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

    def test_unknown_field(self, config: Path) -> None:
        config.write_text("ratio = 0.1\n")
        with pytest.raises(ConfigurationError, match=r"line.toml: ratio: extra inputs"):
            load_settings(config, {})

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
