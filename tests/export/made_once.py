"""Graphs of the same module are traced once in a test process: a trace takes seconds.

The same module: its class, every attribute and every bit of every tensor, its frame size and its
inputs. What is traced of it is then the same; two that differ in anything are traced each.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from patchline.export.onnx_graph import DynamicInput, to_onnx
from patchline.export.precision import form
from patchline.runtime.contract import ModelSize

_LARGEST_BYTES = 1 << 25
"""Of a graph that is kept."""

_made: dict[str, bytes] = {}


class _ByValue(pickle.Pickler):
    """Writes equal objects alike, wherever they come from."""

    def reducer_override(self, given: Any) -> Any:
        if isinstance(given, torch.Tensor):
            values = given.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            return tuple, ((str(given.dtype), *given.shape, values.numpy().tobytes()),)
        return NotImplemented


def to_onnx_once(
    detector: nn.Module, size: ModelSize, inputs: Mapping[str, DynamicInput] | None = None
) -> onnx.ModelProto:
    """As :func:`patchline.export.onnx_graph.to_onnx`; the graph is the caller's own."""
    given = [(name, item.example, repr(item.axes)) for name, item in (inputs or {}).items()]
    key = digest((detector, size, given))
    if key not in _made:
        made = to_onnx(detector, size, inputs).SerializeToString()
        if len(made) > _LARGEST_BYTES:
            return onnx.load_from_string(made)
        _made[key] = made
    return onnx.load_from_string(_made[key])


def digest(given: Any) -> str:
    """Of everything that an object holds."""
    into = io.BytesIO()
    pickler = _ByValue(into, protocol=5)
    pickler.fast = True  # no references: strings that are equal need not be the same
    pickler.dump(given)
    return hashlib.sha256(into.getbuffer()).hexdigest()


def trace_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every export from now on take a graph that was traced before."""
    monkeypatch.setattr(form, "to_onnx", to_onnx_once)
