"""One drawn data set, one fit and one export for all tests of the workstation side."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from patchline.export.cli import export_model as export_model_command
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.exporter import export_model
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx
from patchline.runtime.preprocess import Frame
from patchline.runtime.progress import SilentSteps
from tests.commands import Call, Caller

from .drawn import CLASS_NAME, QUICK, quick_fit, write_class, write_good
from .made_once import to_onnx_once, trace_once

# These models are so small that threads cost more than they save, and tenfold on a busy machine.
torch.set_num_threads(1)

_SHARED = Path(__file__).parents[2].parent / "shared"


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    """Whatever a test exports, the same module is traced once."""
    with pytest.MonkeyPatch.context() as patch:
        trace_once(patch)
        yield


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one drawn class; only to be read."""
    root = tmp_path_factory.mktemp("data")
    write_class(root)
    return root


@pytest.fixture(scope="session")
def fitted(drawn_data: Path) -> FittedModel:
    """A fit of the drawn class."""
    return quick_fit(drawn_data)


@pytest.fixture(scope="session")
def exported(fitted: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``gasket.onnx`` with its neighbours; only to be read."""
    return export_model(fitted, QUICK, tmp_path_factory.mktemp("models"), SilentSteps())


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported model, to be damaged at will."""
    folder = tmp_path / "models"
    shutil.copytree(exported.parent, folder)
    return folder / exported.name


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    drawn_data: Path,
) -> Call:
    """Run ``export-model`` in this process, in a folder with drawn data of two classes."""
    shutil.copytree(drawn_data, tmp_path / "data")
    write_good(tmp_path / "data" / "lids", 4, first_seed=900)
    monkeypatch.chdir(tmp_path)
    return functools.partial(Caller(monkeypatch, capsys), export_model_command)


ByScore = Callable[[str], tuple[Detector, Path]]


@pytest.fixture(scope="session")
def by_score(
    fitted: FittedModel, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> ByScore:
    """The fitted bank under each score: the module and its ONNX file, made once."""
    folder = tmp_path_factory.mktemp("scores")

    @functools.cache
    def make(score: str) -> tuple[Detector, Path]:
        embedder = fitted.detector.embedder
        if score == QUICK.score_name:
            return fitted.detector, exported
        head = AnomalyHead(
            fitted.memory_bank,
            fitted.statistics,
            embedder.grid,
            embedder.size,
            score=score,
            neighbors=QUICK.neighbors,
        )
        path = folder / f"{score}.onnx"
        save_onnx(to_onnx_once(Detector(embedder, head), embedder.size), path)
        return Detector(embedder, head), path

    return make


@pytest.fixture(scope="session")
def seven_frames(drawn_data: Path, fitted: FittedModel) -> Frame:
    """Seven frames of model size: good ones of the training set, and the test set."""
    folder = drawn_data / CLASS_NAME
    paths = [*sorted(folder.glob("train/good/*"))[:3], *sorted(folder.glob("test/*/*"))]
    return read_frames(tuple(paths), fitted.detector.embedder.size)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, where it is."""
    if not (_SHARED / "data").is_dir():
        pytest.skip(f"{_SHARED} is not here: it holds the MVTec classes and the weights")
    return _SHARED
