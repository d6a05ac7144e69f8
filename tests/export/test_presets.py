"""Presets: each is whole and checked, and a name that is none says which there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from patchline.export.config import FitSettings, load_settings
from patchline.export.config_train import TrainSettings
from patchline.export.presets import preset_names, read_config
from patchline.runtime.errors import ConfigurationError

NAMES = (
    "patchcore_256",
    "patchcore_noising_256",
    "rd_256_100e",
    "rd_256_300e",
    "rd_noising_256_100e",
)

PAGE = (Path(__file__).parents[2] / "docs" / "export-model.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_these_are_there() -> None:
    assert preset_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_makes_settings_and_names_what_matters(name: str) -> None:
    settings = load_settings(Path(name), {})
    assert (settings.backbone, settings.image_size) == ("wide_resnet50_2", (256, 256))
    assert {"method", "backbone", "image_size"} <= settings.model_fields_set


def test_the_default_is_a_preset() -> None:
    assert load_settings(Path("patchcore_noising_256"), {}) == FitSettings()


def test_patchcore() -> None:
    assert load_settings(Path("patchcore_256"), {}) == FitSettings(method="patchcore")


@pytest.mark.parametrize(
    ("name", "train"),
    [
        ("rd_256_100e", TrainSettings()),
        ("rd_256_300e", TrainSettings(epochs=300, warmup_epochs=10)),
        ("rd_noising_256_100e", TrainSettings(noise=True)),
    ],
)
def test_trainings(name: str, train: TrainSettings) -> None:
    settings = load_settings(Path(name), {})
    assert settings == FitSettings(method="reverse-distillation", train=train)
    assert (settings.train.batch_size, settings.train.learning_rate) == (8, 0.005)
    assert (settings.train.noise_min, settings.train.noise_max) == (0.01, 0.3)
    assert settings.train.noise_warmup_epochs == 10


def test_a_file_of_that_name_wins() -> None:
    Path("rd_256_100e").write_text("seed = 3\n")
    assert read_config(Path("rd_256_100e")) == {"seed": 3}


def test_a_folder_of_that_name_does_not() -> None:
    Path("rd_256_100e").mkdir()
    assert read_config(Path("rd_256_100e"))["method"] == "reverse-distillation"


def test_options_win_over_a_preset_field_by_field() -> None:
    given = {"seed": 5, "train": {"epochs": 20, "lr": 0.1}}
    settings = load_settings(Path("rd_noising_256_100e"), given)
    assert settings.seed == 5
    assert settings.train == TrainSettings(epochs=20, lr=0.1, noise=True)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("rd_256_100", "rd_256_100e"),
        ("rd_noising_100e", "rd_noising_256_100e"),
        ("patchcore_256.toml", "patchcore_256"),
        ("some/where/patchcor_256", "patchcore_256"),
    ],
)
def test_a_name_that_is_none_lists_them_and_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_config(Path(name))
    assert str(caught.value) == (
        f"cannot read {name}: No such file or directory, and no preset has that name. "
        f"Did you mean {meant}? Presets: {', '.join(NAMES)}"
    )


def test_a_name_that_is_near_to_none() -> None:
    with pytest.raises(ConfigurationError, match=r"has that name\. Presets: patchcore_256, "):
        read_config(Path("line.toml"))


@pytest.mark.parametrize("name", ["", ".", "..", "../configs/rd_256_100e", "__init__"])
def test_a_path_is_no_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot read "):
        read_config(Path(name))


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_the_files_of_the_documentation_are_right(example: str) -> None:
    path = Path("line.toml")
    path.write_text(example, encoding="utf-8")
    assert load_settings(path, {}).model_fields_set


@pytest.mark.parametrize("name", [*NAMES, *TrainSettings.model_fields])
def test_the_documentation_names_each_preset_and_each_field(name: str) -> None:
    assert f"`{name}`" in PAGE
