"""What quantising one layer costs: each alone in INT8, all others in float32."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from patchline.calibration.ranges import Ranges
from patchline.export.onnx_session import session_options
from patchline.export.precision.int8 import quantize_backbone
from patchline.export.precision.layers import embeddings, layers, load_graph
from patchline.runtime.contract import IMAGE_SCORE
from patchline.runtime.engine.onnxruntime import import_onnxruntime
from patchline.runtime.errors import ConfigurationError, DataError
from patchline.runtime.progress import Advance

AUTO = "auto"
"""In the place of names of layers: those that fail stay in float."""

LIMIT_DB = 22.5
"""A layer below it fails: its error is more than 7.5 % of the embeddings.

Measured on MVTec bottle and pill (ResNet-18, 256 px), ranges made narrower step by step: no layer
fails by rounding alone (23.8 dB and above); above the limit image AUROC moves by 0.004 at most,
and good scores by 30 %; below 15 dB it loses up to 0.5, and scores rise by half and more.
"""

Feeds = Mapping[str, npt.NDArray[Any]]
_Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer in INT8, the rest in float32.

    Attributes:
        name: as for :class:`patchline.export.precision.layers.Layer`.
        operator: ``Conv`` or ``Add``.
        snr_db: signal-to-noise ratio of the patch embeddings, 20 log10(|z| / |z' - z|) over all
            patches; inf where nothing changes.
        score_shift: median change of the image score, in parts of the median score.
    """

    name: str
    operator: str
    snr_db: float
    score_shift: float

    @property
    def fails(self) -> bool:
        """Whether the embeddings are disturbed more than :data:`LIMIT_DB` allows."""
        return self.snr_db < LIMIT_DB


def sensitivity(
    model: onnx.ModelProto | Path,
    ranges: Ranges,
    cases: Sequence[Feeds],
    *,
    advance: Advance = lambda done: None,
) -> list[LayerSensitivity]:
    """Quantise every layer alone and compare with the float32 graph.

    Args:
        model: the float32 graph or its file.
        ranges: found on it.
        cases: what the graph takes, a picture each: ``frames`` uint8 ``[1, H, W, 3]``, and the
            bank where it is external. Good pictures whose own rows are not in the bank.
        advance: told how many layers are done.

    Returns:
        Every layer, the worst first.

    Raises:
        ConfigurationError: no case is given.
        DataError: the float32 scores are 0, so that no shift can be given.
        ModelError: as for :func:`patchline.export.precision.int8.quantize_backbone`.
    """
    if not cases:
        raise ConfigurationError("the sensitivity of layers needs at least one good picture")
    source = _with_embeddings(load_graph(model))
    found = layers(source)
    names = [layer.name for layer in found]
    expected = _run(source, cases)
    if np.median(expected[1]) <= 0:
        raise DataError(
            "the image scores of the sensitivity pass are 0: its pictures lie in the memory bank "
            "themselves. Take their own rows out of the bank, or give other pictures"
        )
    rows = []
    for done, layer in enumerate(found, start=1):
        others = [name for name in names if name != layer.name]
        got = _run(quantize_backbone(source, ranges, others), cases)
        shift = np.median(got[1] - expected[1]) / np.median(expected[1])
        snr_db = signal_to_noise_db(expected[0], got[0])
        rows.append(LayerSensitivity(layer.name, layer.operator, snr_db, float(shift)))
        advance(done)
    return sorted(rows, key=lambda row: row.snr_db)


def failing_layers(rows: Sequence[LayerSensitivity]) -> tuple[str, ...]:
    """Names of the layers that fail: what ``auto`` stands for."""
    return tuple(row.name for row in rows if row.fails)


def signal_to_noise_db(expected: _Values, got: _Values) -> float:
    """20 log10(|expected| / |got - expected|), inf where they are equal."""
    noise = float(np.square(got - expected).sum())
    signal = float(np.square(expected).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _with_embeddings(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that gives nothing but the image score and the patch embeddings."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    scores = [item for item in model.graph.output if item.name == IMAGE_SCORE]
    patches = helper.make_tensor_value_info(embeddings(model), TensorProto.FLOAT, None)
    del copy.graph.output[:]
    copy.graph.output.extend([patches, *scores])
    return copy


def _run(model: onnx.ModelProto, cases: Sequence[Feeds]) -> tuple[_Values, _Values]:
    """Patch embeddings ``[n, D]`` and image scores ``[n]`` of all cases."""
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(onnxruntime), providers=["CPUExecutionProvider"]
    )
    patches, scores = zip(*(session.run(None, dict(case)) for case in cases), strict=True)
    return np.concatenate(patches).astype(np.float64), np.concatenate(scores).astype(np.float64)
