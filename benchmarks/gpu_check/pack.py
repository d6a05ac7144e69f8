"""``pack``: export the models that are carried to a GPU, and what ONNX Runtime computes with them.

The class is the drawn gasket of the demo, so that nothing but this project is needed: its scores
have a threshold, and its test pictures lie on both sides of it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import onnxruntime

from patchline.benchmarks.gpu_check.carried import (
    BACKBONE,
    CASES,
    EMBEDDED,
    EXTERNAL,
    FRAMES_FILE,
    OTHER,
    RECORD_FILE,
    model_in,
    save_outputs,
)
from patchline.benchmarks.gpu_check.converted import (
    form_of,
    with_head_of,
    write_backbone,
    write_bank,
    write_embedded,
    write_external,
)
from patchline.benchmarks.report import describe_machine
from patchline.export.config import FitSettings
from patchline.export.datasets import good_pictures
from patchline.export.demo.pictures import write_demo_data
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.exporter import export_model
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel, fit
from patchline.export.ties import tie_allowance
from patchline.runtime import contract
from patchline.runtime.contract import Precision
from patchline.runtime.engine import Prediction, open_engine
from patchline.runtime.errors import ConfigurationError, ImageReadError
from patchline.runtime.preprocess import Frame
from patchline.runtime.progress import SilentSteps

GOOD_PICTURES = 20
FRAMES = 8
"""Half of them defective; the largest batch that is compared."""

_CLASS = "gasket"
_STRIDE_PX = 8


@dataclass(frozen=True)
class PackSettings:
    """What is packed; see the command's options."""

    backbone: str = "resnet18"
    weights: str = "random"
    image_size: int = 256
    bank_rows: int = 2048
    precision: str = "fp32"


def pack_models(out: Path, settings: PackSettings) -> dict[str, Any]:
    """Write a folder that :func:`patchline.benchmarks.gpu_check.carried.load_carried` reads.

    Returns:
        What ``packed.json`` holds.

    Raises:
        ConfigurationError: ``out`` holds something, or the settings cannot be.
        PatchlineError: as for a fit and an export.
    """
    if settings.precision not in get_args(Precision):
        raise ConfigurationError(
            f"--precision is {settings.precision}, expected one of {get_args(Precision)}"
        )
    precision = cast(Precision, settings.precision)
    if out.exists() and any(out.iterdir()):
        raise ConfigurationError(f"{out} is not empty: give a new folder")
    with tempfile.TemporaryDirectory() as folder:
        data = write_demo_data(
            Path(folder), good=GOOD_PICTURES, test_good=FRAMES // 2, test_defective=FRAMES // 2
        )
        chosen = fit_settings(settings)
        fitted = fit(good_pictures(data.parent, _CLASS), chosen, SilentSteps(), _refuse)
        tests = tuple(sorted(data.glob("test/*/*.png")))
        frames = read_frames(tests, chosen.model_size)
        detectors = write_cases(fitted, chosen, precision, out)
    batch = {name: _store(out, name, detectors[name], frames) for name in (*CASES, OTHER)}
    np.savez_compressed(out / FRAMES_FILE, frames=frames)
    record = {
        "settings": asdict(settings),
        "frames": len(frames),
        "onnxruntime": onnxruntime.__version__,
        "machine": describe_machine(),
        "batch_max_score_error": batch,
        "megabytes": round(sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 1e6, 1),
    }
    (out / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def fit_settings(settings: PackSettings) -> FitSettings:
    """Settings of a fit whose bank has just the rows that are asked for.

    Raises:
        ConfigurationError: more rows than there are patches.
    """
    patches = GOOD_PICTURES * (settings.image_size // _STRIDE_PX) ** 2
    if settings.bank_rows > patches:
        raise ConfigurationError(
            f"--bank-rows is {settings.bank_rows}, expected at most {patches} at this image size"
        )
    return FitSettings(
        backbone=settings.backbone,
        weights=settings.weights,
        image_size=(settings.image_size, settings.image_size),
        coreset_ratio=settings.bank_rows / patches,
    )


def write_cases(
    fitted: FittedModel, settings: FitSettings, precision: Precision, out: Path
) -> dict[str, Detector | None]:
    """Export the fit with its bank inside, with its bank beside it, and its backbone alone.

    Returns:
        The module behind each case; ``None`` for the backbone.
    """
    form, second = form_of(fitted, precision), second_product(fitted, settings)
    if precision == "fp32":  # as it is exported for users
        for case, bank in ((EMBEDDED, "embedded"), (EXTERNAL, "external")):
            placed = settings.model_copy(update={"bank": bank})
            export_model(fitted, placed, out / case, SilentSteps())
            for state in (out / case).glob("*.safetensors"):
                state.unlink()  # the training side's, of no use there
    else:
        write_embedded(fitted, settings, form, out / EMBEDDED)
        write_external(fitted, settings, form, out / EXTERNAL)
    other = with_head_of(form, second)
    write_bank(second, settings, other, out / OTHER)
    whole, _ = model_in(out / EMBEDDED)
    write_backbone(fitted, settings, form, whole, out / BACKBONE / f"{BACKBONE}.onnx")
    detector = form.detector
    return {EMBEDDED: detector, EXTERNAL: detector, OTHER: other.detector, BACKBONE: None}


def second_product(fitted: FittedModel, settings: FitSettings) -> FittedModel:
    """Another product on the same backbone: the first half of the same rows."""
    detector, half = fitted.detector, fitted.memory_bank[: len(fitted.memory_bank) // 2]
    head = AnomalyHead(
        half,
        fitted.statistics,
        detector.head.grid,
        settings.model_size,
        score=settings.score_name,
        neighbors=settings.neighbors,
    )
    return replace(
        fitted,
        detector=Detector(detector.embedder, head),
        memory_bank=half,
        pictures=replace(fitted.pictures, class_name=f"{_CLASS}-half"),
    )


def _store(out: Path, name: str, detector: Detector | None, frames: Frame) -> float:
    """Keep the outputs frame by frame; how far those of one large batch are from them."""
    model, bank = model_in(out / (EXTERNAL if name == OTHER else name))
    if name == OTHER:
        (bank,) = (out / OTHER).iterdir()
    with open_engine(model, provider="cpu", bank=bank) as engine:
        singles = [engine.infer(frames[i : i + 1]) for i in range(len(frames))]
        together = engine.infer(frames)
    joined = [np.concatenate([getattr(s, n) for s in singles]) for n in contract.OUTPUTS]
    expected = Prediction(*joined)
    allowed = (
        Prediction(*(np.zeros_like(values) for values in joined))
        if detector is None
        else Prediction(*tie_allowance(detector, frames).outputs)
    )
    save_outputs(out / f"{name}.npz", expected, allowed)
    return float(np.abs(expected.image_score - together.image_score).max())


def _refuse(error: ImageReadError) -> None:
    raise error
