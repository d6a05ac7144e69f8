"""The benchmark of reverse distillation, tiny: one epoch on drawn parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from patchline.benchmarks import distillation
from patchline.benchmarks.distillation import Noise, benchmark_distillation
from patchline.export.demo.pictures import write_demo_data
from patchline.export.distillation.checkpoint import checkpoint_path
from patchline.runtime.errors import ConfigurationError, DataError
from tests.benchmarks.smoke import TINY, only_result, smoke

SETS = ["epochs=1", "warmup_epochs=0", "batch_size=3", "noise_warmup_epochs=0"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_demo_data(tmp_path / "data", good=8, test_good=2, test_defective=3, size=(96, 96))
    return tmp_path / "data"


def test_smoke_distillation(tmp_path: Path, data: Path) -> None:
    words = [word for field in SETS for word in ("--set", f"train.{field}")]
    words += ["--class", "gasket", "--noise", "with", "--checkpoints", str(tmp_path / "kept")]
    results = smoke("distillation", tmp_path / "out", "--data", data, *TINY, *words)
    assert (results["epochs"], results["batch"]) == (1, 3)
    assert list(results["classes"]["gasket"]) == ["noise"]
    found = results["classes"]["gasket"]["noise"]
    assert (found["good"], found["defective"]) == (2, 3)
    assert found["training_images"] + found["calibration_images"] == 8
    assert 0 <= found["image_auroc"] <= 1
    assert len(found["losses"]) == 1 and 0 < found["losses"][0] < 6
    assert found["fit_s"] > 0
    assert checkpoint_path(tmp_path / "kept" / "gasket" / "noise").is_file()


class Trainings:
    """Stands for the trainings: each gives its number, and one may break off."""

    def __init__(self) -> None:
        self.made: list[tuple[str, bool]] = []
        self.folders: list[Path | None] = []
        self.breaks_off_at: int | None = None

    def __call__(self, pictures: Any, data: Path, settings: Any, folder: Path | None) -> Any:
        if len(self.made) == self.breaks_off_at:
            raise KeyboardInterrupt
        self.made.append((pictures.class_name, settings.train.noise))
        self.folders.append(folder)
        return {"training": len(self.made)}


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    made = Trainings()
    monkeypatch.setattr(distillation, "_evaluate", made)
    return made


def bench(data: Path, *more: str, **options: Any) -> Any:
    """One call, of two classes where none are named; the classes in the result after it."""
    (data / "lids").is_dir() or (data / "lids").symlink_to(data / "gasket")
    sets = [f"train.{field}" for field in (*SETS, *more)]
    small = {"backbone": "resnet18", "weights": "random", "image_size": 64, "device": "cpu"}
    out = data.parent / "out"
    benchmark_distillation(data, overrides=sets, out=out, **(small | options))
    return only_result(out)["classes"]


def test_each_training_is_written_when_it_is_done(data: Path, trainings: Trainings) -> None:
    trainings.breaks_off_at = 3
    with pytest.raises(KeyboardInterrupt):
        bench(data)
    assert only_result(data.parent / "out")["classes"] == {
        "gasket": {"plain": {"training": 1}, "noise": {"training": 2}},
        "lids": {"plain": {"training": 3}},
    }


def test_each_training_may_be_a_command_of_its_own(data: Path, trainings: Trainings) -> None:
    bench(data, classes=["lids"], noise=Noise.WITH)
    bench(data, classes=["gasket"], noise=Noise.WITHOUT)
    found = bench(data, classes=["lids"], checkpoints=data / "kept")
    assert trainings.made == [("lids", True), ("gasket", False), ("lids", False), ("lids", True)]
    assert found == {
        "lids": {"plain": {"training": 3}, "noise": {"training": 4}},
        "gasket": {"plain": {"training": 2}},
    }
    kept = data / "kept" / "lids"
    assert trainings.folders == [None, None, kept / "plain", kept / "noise"]


def test_trainings_with_other_settings_are_not_mixed(data: Path, trainings: Trainings) -> None:
    bench(data, classes=["lids"], noise=Noise.WITHOUT)
    words = r'learning_rate is .* there and 0\.25 here; training is .*"noise_max": 0\.2.* --out'
    with pytest.raises(ConfigurationError, match=words):
        bench(data, "lr=0.25", "noise_max=0.2", classes=["gasket"])
    assert trainings.made == [("lids", False)]
    assert only_result(data.parent / "out")["classes"] == {"lids": {"plain": {"training": 1}}}


def test_a_class_without_a_test_set_is_refused(data: Path, trainings: Trainings) -> None:
    with pytest.raises(DataError, match=r"bolts in .*data: no labelled test pictures in NAME/test"):
        bench(data, classes=["lids", "bolts"])
    assert trainings.made == []


@pytest.mark.parametrize("is_there", [False, True])
def test_a_training_goes_on_from_its_checkpoint(
    data: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    def judged(*given: Any) -> dict[str, Any]:
        return {}

    def train(*given: Any, **how: Any) -> None:
        assert (how["checkpoints"], how["resume"]) == (folder, is_there)

    folder = data.parent / "kept" / "lids" / "plain"
    if is_there:
        folder.mkdir(parents=True)
        checkpoint_path(folder).touch()
    monkeypatch.setattr(distillation, "fit_distillation", train)
    monkeypatch.setattr(distillation, "_judged", judged)
    found = bench(data, classes=["lids"], noise=Noise.WITHOUT, checkpoints=data.parent / "kept")[
        "lids"
    ]["plain"]
    assert ("fit_s" in found, "fit" in found) == (not is_there, is_there)
    assert "commit" in found
