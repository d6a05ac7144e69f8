"""The ways to an influence [N, D] that ``benchmarks.influence`` times (DESIGN sections 3 and 4).

A form is a mean distance to the k nearest rows, [N, D] -> [N], and a way to differentiate it: by
autograd, or by disturbing one channel after the other. The closed form needs neither.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import onnxruntime
import torch
from torch import Tensor, nn

from patchline.export.influence import influence_of_rows
from patchline.export.neighbors import NearestNeighbors
from patchline.export.onnx_graph import OPSET
from patchline.runtime.errors import ModelError

MeanDistance = Callable[[Tensor], Tensor]
"""Patches ``[N, D]`` -> mean distance ``[N]`` to their k nearest rows."""


@dataclass(frozen=True)
class Question:
    """What every form is asked.

    Attributes:
        embeddings: float32 ``[N, D]``.
        memory_bank: float32 ``[M, D]``.
        search: over that bank.
        channels: that a loop over channels disturbs.
        step: by how much.
    """

    embeddings: Tensor
    memory_bank: Tensor
    search: NearestNeighbors
    channels: list[int]
    step: float


class ClosedForm(nn.Module):
    """Search, gather and closed form: what the exported model does with its patches."""

    def __init__(self, search: NearestNeighbors) -> None:
        super().__init__()
        self.search = search

    def forward(self, embeddings: Tensor) -> Tensor:
        """Jacobian ``[N, D]`` of the mean distance of ``[N, D]``."""
        indices = self.search(embeddings)
        return influence_of_rows(embeddings, self.search.gather, indices).jacobian


def in_onnx_runtime(module: nn.Module, embeddings: Tensor) -> Callable[[], Tensor]:
    """A run of ``module`` on these ``embeddings`` in ONNX Runtime on the CPU.

    Raises:
        ModelError: the exporter gives nothing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes on its own internals
        program = torch.onnx.export(
            module.eval(),
            (embeddings,),
            input_names=["embeddings"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError("the closed form cannot be exported to ONNX: the exporter gave nothing")
    graph = program.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    # Threads that spin on after a run would slow down the form that is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feed = {"embeddings": embeddings.numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def through_cdist(memory_bank: Tensor, k: int) -> MeanDistance:
    """Distances to all rows, and the k smallest: what research code writes."""
    return lambda z: torch.cdist(z, memory_bank).topk(k, dim=1, largest=False).values.mean(1)


def after_search(
    search: NearestNeighbors, distances: Callable[[Tensor], MeanDistance]
) -> MeanDistance:
    """Our search, outside of any gradient, then ``distances`` to the rows it found."""
    return lambda z: distances(search.gather(search(z.detach())))(z)


def by_differences(neighbors: Tensor) -> MeanDistance:
    """Mean distance to these neighbours ``[N, k, D]``."""
    return lambda z: torch.linalg.vector_norm(z.unsqueeze(1) - neighbors, dim=2).mean(1)


def by_small_cdist(neighbors: Tensor) -> MeanDistance:
    """The same by ``torch.cdist`` per patch, which for so few rows holds no differences."""
    return lambda z: torch.cdist(z.unsqueeze(1), neighbors).mean((1, 2))


def autograd_jacobian(mean_distance: MeanDistance, embeddings: Tensor) -> Tensor:
    """Jacobian ``[N, D]`` by one backward pass."""
    leaf = embeddings.detach().requires_grad_()
    gradient: Tensor
    (gradient,) = torch.autograd.grad(mean_distance(leaf).sum(), leaf)
    return gradient


def forward_differences(mean_distance: MeanDistance, question: Question) -> Tensor:
    """Columns ``[N, C]`` of the Jacobian: one mean distance per channel, and one undisturbed."""
    disturbed, step = question.embeddings.clone(), question.step
    still = mean_distance(disturbed)
    columns = [_at(mean_distance, disturbed, at, step) - still for at in question.channels]
    return torch.stack(columns, dim=1) / step


def central_differences(mean_distance: MeanDistance, question: Question) -> Tensor:
    """Columns ``[N, C]`` of the Jacobian: two mean distances per channel."""
    disturbed, step = question.embeddings.clone(), question.step
    columns = [
        _at(mean_distance, disturbed, at, step) - _at(mean_distance, disturbed, at, -step)
        for at in question.channels
    ]
    return torch.stack(columns, dim=1) / (2 * step)


def _at(mean_distance: MeanDistance, disturbed: Tensor, channel: int, step: float) -> Tensor:
    # In place and put back: a copy of all patches for every channel would cost extra.
    original = disturbed[:, channel].clone()
    disturbed[:, channel] += step
    try:
        return mean_distance(disturbed)
    finally:
        disturbed[:, channel] = original


def saved_bytes(mean_distance: MeanDistance, question: Question) -> int:
    """Bytes that autograd keeps for the backward pass, beside the patches and the bank."""
    leaf = question.embeddings.detach().requires_grad_()
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        alive = mean_distance(leaf)  # while it lives, no address is used twice
    for known in (leaf, question.memory_bank):
        storages.pop(known.untyped_storage().data_ptr(), None)
    del alive
    return sum(storages.values())
