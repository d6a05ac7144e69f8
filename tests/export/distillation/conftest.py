"""One distillation and one export for all tests of the method."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from patchline.export import onnx_graph
from patchline.export.distillation import convert
from patchline.export.distillation.convert import ConvertedDistilled, convert_distilled
from patchline.export.distillation.describe import describe_distilled
from patchline.export.distillation.detector import DistilledDetector
from patchline.export.distillation.exporter import export_distilled
from patchline.export.distillation.fit import DistilledModel
from patchline.export.precision.evidence import data_of
from patchline.runtime.contract import ModelSize
from patchline.runtime.progress import SilentSteps

from .distilled import HALF, QUICK, quick_distillation


@pytest.fixture(scope="session")
def distilled(drawn_data: Path) -> DistilledModel:
    """A distillation of the drawn class."""
    return quick_distillation(drawn_data)


@pytest.fixture(scope="session")
def published(distilled: DistilledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``gasket.onnx`` with its neighbours; only to be read."""
    return export_distilled(distilled, QUICK, tmp_path_factory.mktemp("models"), SilentSteps())


@pytest.fixture
def own_copy(published: Path, tmp_path: Path) -> Path:
    """A copy of the exported model, to be changed at will."""
    folder = tmp_path / "models"
    shutil.copytree(published.parent, folder)
    return folder / published.name


@pytest.fixture(scope="session")
def converted(distilled: DistilledModel, published: Path) -> ConvertedDistilled:
    """The model in half precision, let out by the gate."""
    float32 = describe_distilled(distilled, QUICK, None)
    data = data_of(distilled.pictures)

    def to_onnx(detector: DistilledDetector, size: ModelSize) -> onnx.ModelProto:
        # That of the float32 model is there already, and takes seconds.
        is_known = detector is distilled.detector
        return onnx.load(str(published)) if is_known else onnx_graph.to_onnx(detector, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "to_onnx", to_onnx)
        return convert_distilled(distilled, float32, HALF, SilentSteps(), data=data)


@pytest.fixture(scope="session")
def half_file(
    distilled: DistilledModel,
    converted: ConvertedDistilled,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """``gasket.onnx`` in half precision, with its neighbours; only to be read."""
    folder = tmp_path_factory.mktemp("half")
    return export_distilled(distilled, HALF, folder, SilentSteps(), converted)
