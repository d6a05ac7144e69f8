"""Distilled model -> ``NAME.onnx``, ``.json`` and ``.safetensors``: verified, all or nothing."""

from __future__ import annotations

from pathlib import Path

from patchline.export.config import FitSettings
from patchline.export.distillation.convert import ConvertedDistilled
from patchline.export.distillation.describe import describe_distilled, state_of_distilled
from patchline.export.distillation.detector import DistilledDetector
from patchline.export.distillation.fit import DistilledModel
from patchline.export.distillation.state import save_distilled_state
from patchline.export.exporter import (
    check_target,
    remove_older_data,
    sample_frames,
    try_model,
    write_model,
)
from patchline.export.onnx_graph import save_onnx, to_onnx
from patchline.export.parity import Expected, verify_against
from patchline.export.precision.half import HALF_TOLERANCES
from patchline.export.state import state_path
from patchline.runtime.contract import external_data_path
from patchline.runtime.files import staged_files
from patchline.runtime.progress import Steps

ROUNDING = 1e-2
"""Scores below it, of 6 at most, are compared as if they were that large.

A student that rebuilds every patch leaves nothing but rounding, which no two runtimes share.
"""


def export_distilled(
    fitted: DistilledModel,
    settings: FitSettings,
    out: Path,
    steps: Steps,
    converted: ConvertedDistilled | None = None,
) -> Path:
    """:func:`patchline.export.exporter.export_model` for a distilled model.

    All or nothing as there, with the same arguments and errors; there is no bank, so the path given
    back is always that of the ONNX file, and no search to choose.
    """
    given = converted.manifest.precision if converted else "fp32"
    if given != settings.precision:
        raise ValueError(f"asked for {settings.precision}, given a model in {given}")
    check_target(out, fitted.pictures.class_name, settings)
    detector = converted.detector if converted else fitted.detector
    name = f"{fitted.pictures.class_name}.onnx"
    with steps.step("Exporting and verifying", 3) as advance, staged_files(out) as stage:
        graph = converted.graph if converted else to_onnx(detector, settings.model_size)
        advance(1)
        save_onnx(graph, stage / name)
        frames = sample_frames(fitted.pictures.paths, settings.model_size)
        tolerances = HALF_TOLERANCES if converted else None
        parity = verify_against(stage / name, expected_of(detector), frames, tolerances)
        advance(2)
        float32 = describe_distilled(fitted, settings, None if converted else parity)
        described = converted.manifest if converted else float32
        manifest = write_model(graph, stage / name, described.model_copy(update={"parity": parity}))
        kept = float32 if converted else manifest
        save_distilled_state(state_of_distilled(fitted, kept), state_path(stage / name))
        try_model(stage / name, frames[:1])
        is_one_file = not external_data_path(stage / name).exists()
        advance(3)
    if is_one_file:
        remove_older_data(out / name)
    return out / name


def expected_of(detector: DistilledDetector) -> Expected:
    """What a file of this detector has to compute. No patch has two right answers here."""
    return Expected(size=detector.model.size, predict=detector.predict, floor=ROUNDING)
