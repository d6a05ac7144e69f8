"""INT8 ranges of an exported graph's backbone, found on good pictures by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from patchline.calibration.activations import PERCENTILE, RangeMethod, check_method
from patchline.calibration.ranges import (
    IMAGES,
    Observe,
    Ranges,
    cache_file,
    measure,
    read_cache,
    spread,
    write_cache,
)
from patchline.export.datasets import digest_of
from patchline.export.onnx_session import session_options
from patchline.export.precision.layers import activations, cut, layers, load_graph
from patchline.runtime.contract import FRAMES, ModelSize
from patchline.runtime.engine.onnxruntime import import_onnxruntime
from patchline.runtime.preprocess import Frame
from patchline.runtime.progress import Advance


def find_ranges(
    graph: Path | onnx.ModelProto,
    pictures: Sequence[Path],
    size: ModelSize,
    method: RangeMethod = "percentile",
    *,
    images: int = IMAGES,
    percentile: float = PERCENTILE,
    cache: Path | None = None,
    advance: Advance = lambda done: None,
) -> Ranges:
    """Run the backbone on good pictures and find the range of every activation.

    Args:
        graph: the float32 graph, or its file; with its bank embedded or external, which is not
            needed.
        pictures: good pictures that can be read.
        size: height and width of the frames in pixels.
        method: ``minmax``, ``entropy`` or ``percentile``; the range of the pixels themselves is
            known and not clipped by any.
        images: how many of the pictures to look at, evenly spread over them.
        percentile: share of the values that are not clipped, in %, above 50 and up to 100.
        cache: folder where ranges are kept (:func:`patchline.calibration.ranges.cache_folder`),
            ``None`` to find them anew.
        advance: told how many of the pictures are done, at once of all where they were kept.

    Raises:
        ConfigurationError: an unknown method, a percentile out of range, less than eight pictures.
        ModelError: the graph is quantised already, or is no float32 Patchline graph.
        ImageReadError: a picture cannot be read.
        DataError: an activation is NaN or infinite.
    """
    check_method(method, percentile)
    chosen = spread(pictures, images)
    model = load_graph(graph)
    tensors = activations(model)
    backbone = cut(model, tensors).SerializeToString(deterministic=True)
    digest = digest_of(chosen)
    file = cache and cache_file(cache, backbone, digest, size, method, percentile)
    if file is not None and (kept := read_cache(file, tensors)) is not None:
        advance(len(chosen))
        return kept
    observe = _observer(backbone, tensors)
    ranges = measure(observe, chosen, digest, size, method, percentile, advance)
    pixels = str(layers(model)[0].node.input[0])
    ranges = ranges.model_copy(
        update={"limits": ranges.limits | {pixels: _pixel_limit(observe, pixels, size)}}
    )
    if file is not None:
        write_cache(file, ranges)
    return ranges


def _pixel_limit(observe: Observe, name: str, size: ModelSize) -> float:
    """The largest absolute value that any frame can have, whatever the pictures show.

    A white background lies at the very end of the range and is no outlier: to clip it changes
    every patch of it.
    """
    ends = (np.full((1, size.height, size.width, 3), value, np.uint8) for value in (0, 255))
    return max(float(np.abs(observe(frames)[name]).max()) for frames in ends)


def _observer(backbone: bytes, tensors: list[str]) -> Observe:
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(
        backbone, session_options(onnxruntime), providers=["CPUExecutionProvider"]
    )

    def observe(frames: Frame) -> Mapping[str, npt.NDArray[np.float32]]:
        return dict(zip(tensors, session.run(tensors, {FRAMES: frames}), strict=True))

    return observe
