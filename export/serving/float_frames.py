"""The graph that nvinfer can feed: float planes instead of bytes, and a score with a dimension.

Gst-nvinfer converts pixels to float itself, in planes (its documentation, "Gst-nvinfer"), and fills
the input of any engine so: one that takes bytes would be given halves of floats. Their values are
still 0 to 255, so that the graph's own conversion of bytes to float is one of floats, and nothing
else changes. It allocates an output by its dims without the batch and nothing for one without any,
so that the score becomes ``[B, 1]``.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from patchline.runtime.contract import FRAMES, IMAGE_SCORE, ModelSize
from patchline.runtime.errors import ModelError

_PACKED, _SCORE, _AXIS = "frames_packed", "image_score_flat", "image_score_axis"


def with_float_frames(graph: ModelProto, size: ModelSize) -> ModelProto:
    """A copy that takes float32 ``[B, 3, H, W]``, BGR, 0 to 255, and gives scores ``[B, 1]``.

    Args:
        graph: of the contract: uint8 ``[B, H, W, 3]``; not changed.
        size: of the frames.

    Raises:
        ModelError: it has other inputs.
    """
    names = [item.name for item in graph.graph.input]
    if names != [FRAMES]:
        raise ModelError(f"the graph has inputs {names}, expected [{FRAMES!r}]. Export it again")
    made = ModelProto()
    made.CopyFrom(graph)
    _replace(made, FRAMES, _PACKED, of_inputs=True)
    _replace(made, IMAGE_SCORE, _SCORE, of_inputs=False)
    _take_planes(made, size)
    _give_a_dimension(made)
    del made.graph.value_info[:]
    onnx.checker.check_model(made)
    return made


def _replace(model: ModelProto, old: str, new: str, *, of_inputs: bool) -> None:
    for node in model.graph.node:
        for names in (node.input,) if of_inputs else (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def _take_planes(model: ModelProto, size: ModelSize) -> None:
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    planes = helper.make_tensor_value_info(
        FRAMES, TensorProto.FLOAT, [batch, 3, size.height, size.width]
    )
    model.graph.input[0].CopyFrom(planes)
    pack = helper.make_node("Transpose", [FRAMES], [_PACKED], name=_PACKED, perm=[0, 2, 3, 1])
    model.graph.node.insert(0, pack)


def _give_a_dimension(model: ModelProto) -> None:
    (score,) = (item for item in model.graph.output if item.name == IMAGE_SCORE)
    batch = score.type.tensor_type.shape.dim[0].dim_param or "batch"
    score.CopyFrom(helper.make_tensor_value_info(IMAGE_SCORE, TensorProto.FLOAT, [batch, 1]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), _AXIS))
    node = helper.make_node("Unsqueeze", [_SCORE, _AXIS], [IMAGE_SCORE], name=_AXIS)
    model.graph.node.append(node)
