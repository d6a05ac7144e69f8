"""A class from pictures to figures, with an engine that is known by heart."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from patchline.calibration.judge import judge_each
from patchline.export.evaluation.evaluate import evaluate_class, evaluate_test_set, thinned
from patchline.export.evaluation.result import Curve, Evaluation, Metrics
from patchline.export.evaluation.test_set import load_test_set
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import (
    ClassNotFoundError,
    ConfigurationError,
    EngineError,
    ImageReadError,
)
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import preprocess
from tests.programs import run_program
from tests.runtime.tiny_model import SIZE, write_tiny_model

from .lamp import BrightnessEngine, box, noise, write, write_lamps
from .pixels import slow_aupro

IMAGE = ("image_auroc", "image_ap", "image_f1_max")
PIXEL = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_iou_max", "aupro")


def given(metrics: Metrics) -> set[str]:
    return {name for name, value in asdict(metrics).items() if value is not None}


def maps_of(folder: Path) -> list[np.ndarray]:
    size = ModelSize(height=SIZE, width=SIZE)
    return [
        preprocess(read_image(path), size).mean(axis=2, dtype=np.float32)
        for path in sorted(folder.iterdir())
    ]


class TestFigures:
    def test_against_references_over_all_pixels(self, tmp_path: Path) -> None:
        lamps = write_lamps(tmp_path)
        seen: list[int] = []
        found = evaluate_class(BrightnessEngine(), tmp_path, advance=seen.append)
        assert seen == [1, 2, 3, 4, 5, 6, 7]
        good, bright = maps_of(lamps / "test" / "good"), maps_of(lamps / "test" / "bright")
        mask = box() > 0
        labels = np.concatenate([np.tile(mask.ravel(), 4), np.zeros(3 * mask.size, bool)])
        scores = np.concatenate([np.stack(bright).ravel(), np.stack(good).ravel()])
        metrics = found.metrics
        assert given(metrics) == {*IMAGE, *PIXEL}
        assert metrics.pixel_auroc == pytest.approx(roc_auc_score(labels, scores))
        assert metrics.aupro == pytest.approx(slow_aupro([(m, mask) for m in bright], good, 0.3))
        assert metrics.image_auroc == 1.0
        assert (found.problems, found.notes) == ((), ())

    def test_pictures_scores_and_alarms(self, tmp_path: Path) -> None:
        lamps = write_lamps(tmp_path)
        write(lamps / "test" / "good" / "001.png", noise(0, 210, 211))
        write(lamps / "test" / "bright" / "002.png", noise(0, 199, 200))
        write(lamps / "test" / "bright" / "003.png", noise(0, 200, 201))
        found = evaluate_class(BrightnessEngine(), tmp_path)
        assert [item.picture.defect for item in found.pictures] == ["good"] * 3 + ["bright"] * 4
        expected = [m.max() for kind in ("good", "bright") for m in maps_of(lamps / "test" / kind)]
        assert [item.score for item in found.pictures] == expected
        # The threshold is 200; a score at it is an alarm.
        assert (found.false_alarms, found.count(defective=False)) == (1, 3)
        assert (found.found, found.count(defective=True)) == (3, 4)

    def test_the_limit_is_used_and_kept(self, tmp_path: Path) -> None:
        write_lamps(tmp_path)
        low = evaluate_class(BrightnessEngine(), tmp_path, fpr_limit=0.05)
        high = evaluate_class(BrightnessEngine(), tmp_path, fpr_limit=1.0)
        assert (low.fpr_limit, high.fpr_limit) == (0.05, 1.0)
        assert low.metrics.aupro is not None and high.metrics.aupro is not None
        assert low.metrics.aupro < high.metrics.aupro

    def test_curves_run_from_corner_to_corner(self, tmp_path: Path) -> None:
        write_lamps(tmp_path)
        found = evaluate_class(BrightnessEngine(), tmp_path)
        for curve in (found.image_roc, found.pixel_roc, found.pro):
            assert curve is not None
            assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
            assert (np.diff(curve.x) >= 0).all() and (np.diff(curve.y) >= 0).all()

    def test_another_class_than_the_models_own(self, tmp_path: Path) -> None:
        write_lamps(tmp_path, "bulb", good=2)
        assert len(evaluate_class(BrightnessEngine(), tmp_path, class_name="bulb").pictures) == 6
        with pytest.raises(ClassNotFoundError, match="no class lamp"):
            evaluate_class(BrightnessEngine(), tmp_path)

    def test_masks_meet_maps_that_are_not_square(self, tmp_path: Path) -> None:
        lamps = write_lamps(tmp_path)
        write(lamps / "test" / "bright" / "001.png", noise(1, 0, 255, (40, 90)))
        write(lamps / "ground_truth" / "bright" / "001_mask.png", box((40, 90)))
        engine = BrightnessEngine(model_size={"height": 24, "width": 48})
        assert given(evaluate_class(engine, tmp_path).metrics) == {*IMAGE, *PIXEL}


class TestAnyModel:
    def test_what_is_no_engine_gets_the_same_findings(self, tmp_path: Path) -> None:
        folder, engine = write_lamps(tmp_path), BrightnessEngine()
        test_set = load_test_set(tmp_path, folder.name, engine.manifest.model_size)
        judge = functools.partial(judge_each, engine.infer, engine.manifest.model_size)
        seen: list[int] = []
        found = evaluate_test_set(judge, test_set, fpr_limit=0.1, advance=seen.append)
        expected = evaluate_class(engine, tmp_path, fpr_limit=0.1)
        assert seen == [1, 2, 3, 4, 5, 6, 7]
        assert given(found.metrics) == {*IMAGE, *PIXEL}
        assert (found.metrics, found.pictures) == (expected.metrics, expected.pictures)
        assert (found.fpr_limit, found.problems, found.notes) == (0.1, (), ())
        # Once read, a test set serves again.
        assert evaluate_test_set(judge, test_set, fpr_limit=0.1).metrics == found.metrics

    def test_a_limit_out_of_range_is_refused_before_anything_runs(self, tmp_path: Path) -> None:
        test_set = load_test_set(tmp_path, write_lamps(tmp_path).name, ModelSize(height=9, width=9))
        with pytest.raises(ConfigurationError, match="fpr_limit is 2"):
            evaluate_test_set(lambda paths: pytest.fail("it ran"), test_set, fpr_limit=2)


class TestUndefined:
    def evaluate(self, tmp_path: Path, engine: BrightnessEngine | None = None) -> Evaluation:
        return evaluate_class(engine or BrightnessEngine(), tmp_path)

    def test_an_empty_class(self, tmp_path: Path) -> None:
        write(tmp_path / "lamp" / "train" / "good" / "000.png", noise(0, 0, 9))
        found = self.evaluate(tmp_path)
        assert (given(found.metrics), found.pictures) == (set(), ())
        assert "there are no test pictures" in "".join(found.problems)

    def test_only_good_pictures(self, tmp_path: Path) -> None:
        write_lamps(tmp_path, defective=0)
        found = self.evaluate(tmp_path)
        assert (given(found.metrics), len(found.pictures)) == (set(), 3)
        assert "only good pictures (3)" in "".join(found.problems)

    def test_only_defective_pictures_still_have_pixels(self, tmp_path: Path) -> None:
        write_lamps(tmp_path, good=0)
        found = self.evaluate(tmp_path)
        assert given(found.metrics) == set(PIXEL)
        assert "only defective pictures (4)" in "".join(found.problems)

    def test_no_masks_is_a_note_and_no_problem(self, tmp_path: Path) -> None:
        shutil.rmtree(write_lamps(tmp_path) / "ground_truth")
        found = self.evaluate(tmp_path)
        assert (given(found.metrics), found.problems) == (set(IMAGE), ())
        assert len(found.notes) == 1
        assert found.pixel_roc is None and found.pro is None and found.image_roc is not None

    def test_a_wrong_mask_keeps_the_image_metrics(self, tmp_path: Path) -> None:
        for mask in (write_lamps(tmp_path) / "ground_truth" / "bright").iterdir():
            write(mask, box() * 0)
        found = self.evaluate(tmp_path)
        assert given(found.metrics) == set(IMAGE)
        assert "masks that are all zero (4)" in "".join(found.problems)

    def test_identical_scores(self, tmp_path: Path) -> None:
        write_lamps(tmp_path)
        found = self.evaluate(tmp_path, BrightnessEngine(lambda m: m * 0 + 3))
        assert given(found.metrics) == set()
        images, pixels = found.problems
        assert "all 7 image scores are identical (3)" in images
        assert f"all {7 * SIZE * SIZE} pixel scores are identical (3)" in pixels

    def test_masks_that_mark_everything(self, tmp_path: Path) -> None:
        for mask in (write_lamps(tmp_path, good=0) / "ground_truth" / "bright").iterdir():
            write(mask, box() * 0 + 1)
        assert "every pixel" in self.evaluate(tmp_path).problems[-1]


class TestErrors:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("kind", ["good", "bright"])
    def test_a_score_that_is_no_number_names_the_picture(
        self, tmp_path: Path, value: float, kind: str
    ) -> None:
        lamps = write_lamps(tmp_path)
        write(lamps / "test" / kind / "001.png", np.full((SIZE, SIZE, 3), 255, np.uint8))

        def spoil(anomaly_map: np.ndarray) -> np.ndarray:
            return np.where(anomaly_map == 255, np.float32(value), anomaly_map)

        with pytest.raises(EngineError, match=rf"{kind}/001\.png holds NaN or infinite"):
            evaluate_class(BrightnessEngine(spoil), tmp_path)

    @pytest.mark.parametrize("kind", ["good", "bright"])
    def test_an_unreadable_picture_is_named(self, tmp_path: Path, kind: str) -> None:
        (write_lamps(tmp_path) / "test" / kind / "001.png").write_bytes(b"broken")
        with pytest.raises(ImageReadError, match=rf"{kind}/001\.png"):
            evaluate_class(BrightnessEngine(), tmp_path)

    def test_a_limit_out_of_range_is_refused_before_anything_runs(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="fpr_limit is 0"):
            evaluate_class(BrightnessEngine(), tmp_path / "nowhere", fpr_limit=0)


@pytest.mark.parametrize("bend", [lambda x: x**0.1, lambda x: x, lambda x: (x > 0.5) * 1.0])
def test_a_thinned_curve_is_the_same_to_the_eye(
    bend: Callable[[np.ndarray], np.ndarray],
) -> None:
    x = np.linspace(0, 1, 200_001)
    curve = Curve(x, bend(x))
    thin = thinned(curve)
    assert len(thin.x) <= 2003
    assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (0, curve.y[0], 1, 1)
    near = np.interp(thin.x, curve.x, curve.y)
    assert np.array_equal(near, thin.y)  # no point is made up
    back = np.interp(curve.x, thin.x, thin.y)
    moved = np.abs(back - curve.y)
    assert np.quantile(moved, 0.99) < 1e-3


def test_a_curve_of_few_points_is_left_whole() -> None:
    curve = Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert thinned(curve).x.tolist() == [0, 1]


def test_a_device_without_torch_evaluates(tmp_path: Path) -> None:
    """No module of the evaluation, nor the run of one, loads torch or onnx."""
    write_lamps(tmp_path)
    code = (
        "import sys\n"
        "class Device:\n"
        "    absent = {'torch', 'torchvision', 'timm', 'onnx', 'onnxscript'}\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in self.absent:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Device())\n"
        "from pathlib import Path\n"
        "import patchline.export.cli.evaluate_model\n"
        "import patchline.export.cli.evaluation_table\n"
        "from patchline.export.cli.model_files import models_by_class\n"
        "from patchline.export.evaluation.evaluate import evaluate_class\n"
        "from patchline.runtime.engine import open_engine\n"
        "model, data = map(Path, sys.argv[1:])\n"
        "models_by_class([model])\n"
        "with open_engine(model, provider='cpu') as engine:\n"
        "    print(evaluate_class(engine, data).metrics.image_auroc)\n"
    )
    done = run_program(
        [sys.executable, "-c", code, str(write_tiny_model(tmp_path)), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1.0\n"
