"""A converted file is verified as any export: names, axes, shapes, batches, and its values.

The torch module in half precision gives the values of an FP16 file. An INT8 backbone has no twin
in torch: what its values are worth is the gate's to say, and here one frame and many must agree.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchline.export.parity import Tensors, verify_form, verify_parity
from patchline.export.precision.converted import Converted
from patchline.export.precision.form import Form
from patchline.export.precision.half import HALF_TOLERANCES
from patchline.export.precision.masked import MaskedModel
from patchline.runtime.contract import Parity
from patchline.runtime.errors import ParityError
from patchline.runtime.preprocess import Frame

INT8_BATCH = 5e-2
"""Sums in another order move an activation over the edge of its level now and then."""

TWIN = 1e-2
"""Relative; between the embedded graph and the external one that was judged."""


def verify_file(
    path: Path, form: Form, frames: Frame, bank: Tensors | None = None
) -> Parity | None:
    """Open an exported file in ONNX Runtime and verify it.

    Args:
        path: the ONNX file.
        form: what it was made from.
        frames: real frames, uint8 ``[B, H, W, 3]``.
        bank: the inputs after ``frames``, of a graph without a bank.

    Returns:
        The largest differences to the torch module; ``None`` for INT8, which has none.

    Raises:
        ParityError: every difference, listed together.
        ModelError: ONNX Runtime cannot open or run the file.
    """
    if form.precision == "int8":
        verify_form(path, form.detector.embedder.size, frames, INT8_BATCH, bank)
        return None
    tolerances = HALF_TOLERANCES if form.precision == "fp16" else None
    detector = form.detector if bank else form.shipped
    return verify_parity(path, detector, frames, tolerances, bank=bank)


def check_twin(path: Path, converted: Converted, frames: Frame) -> None:
    """Refuse an embedded model that judges otherwise than the external graph the gate has seen.

    Raises:
        ParityError: it does.
        ModelError: ONNX Runtime cannot open a file.
    """
    embedded = MaskedModel(path, {}, converted.manifest)
    external = converted.open(path.with_name(f"{path.stem}-judged.onnx"))
    with embedded, external:
        found, expected = embedded.infer(frames), external.infer(frames)
    external.graph.unlink()
    largest = float(np.abs(expected.anomaly_map).max())
    difference = float(np.abs(found.anomaly_map - expected.anomaly_map).max())
    if not difference <= TWIN * max(largest, converted.manifest.threshold.map_value):
        raise ParityError(
            f"{path.name} does not compute what the gate has judged: its anomaly maps differ by "
            f"{difference:.3g}, and the largest value is {largest:.3g}. Report this"
        )
