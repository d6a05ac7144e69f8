"""Graphs that were made of an exported one compute what it does, or are not written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from patchline.export.serving.split_graph import serialized
from patchline.runtime.contract import ModelSize
from patchline.runtime.engine.onnxruntime import import_onnxruntime
from patchline.runtime.engine.session_options import session_options
from patchline.runtime.errors import ModelError, ParityError
from patchline.runtime.preprocess import Frame

LARGEST_DIFFERENCE = 1e-5
"""In parts of the largest value: the same nodes, which a runtime may join in other ways."""

Arrays = dict[str, npt.NDArray[Any]]


def sample_frames(size: ModelSize) -> Frame:
    """Two frames of noise, uint8 ``[2, H, W, 3]``, always the same: one dark, one of all values."""
    frames = np.random.default_rng(0).integers(0, 256, (2, size.height, size.width, 3))
    frames[0] //= 4
    return frames.astype(np.uint8)


def run(model: ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Outputs of a graph by name, by ONNX Runtime on the CPU.

    Raises:
        ModelError: it cannot be opened or run.
        EngineError: ONNX Runtime is not installed.
    """
    runtime = import_onnxruntime()
    options = session_options(runtime)
    try:
        session = runtime.InferenceSession(
            serialized(model), options, providers=["CPUExecutionProvider"]
        )
        values = session.run(None, dict(inputs))
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        raise ModelError(f"a graph made for a server cannot be run: {error}") from error
    return dict(zip((item.name for item in session.get_outputs()), values, strict=True))


def check_equal(found: Arrays, expected: Arrays, names: Sequence[str]) -> None:
    """Refuse outputs that are not those of the exported graph.

    Raises:
        ParityError: one is not; it is named with the difference.
    """
    for name in names:
        one, other = found[name].reshape(expected[name].shape), expected[name]
        limit = LARGEST_DIFFERENCE * max(float(np.abs(other).max()), 1e-12)
        difference = float(np.abs(one - other).max())
        if not difference <= limit:
            raise ParityError(
                f"the graph made for a server gives another {name}: it differs by {difference:.3g}"
                f", at most {limit:.3g} is accepted. Please report this; the exported model is as "
                "it was"
            )
