"""One graph for every product on a backbone: the bank is an input, not a part of it.

The graph is the detector itself, traced with the bank's tensors put in the place of its own, so
that there is one form of the mathematics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from patchline.export.detector import AnomalyHead, Detector, Outputs
from patchline.export.neighbors import FAR
from patchline.export.onnx_graph import DynamicInput
from patchline.export.scores import PatchCore
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.graph import (
    BANK_NEIGHBORS,
    BANK_SQUARES,
    BANK_STATISTICS,
    GROUP_ROWS,
    MEMORY_BANK,
    ROW_NEIGHBORS,
    bank_inputs,
    least_bank_rows,
)

LARGEST_GROUPS = 1 << 20
"""Of 32 rows: more than any memory holds."""


class ExternalDetector(nn.Module):
    """A detector that judges by the bank it is given with the frames, whatever its own was."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.eval()

    def forward(
        self,
        frames: Tensor,
        memory_bank: Tensor,
        bank_squares: Tensor,
        bank_statistics: Tensor,
        bank_neighbors: Tensor | None = None,
    ) -> Outputs:
        """Judge frames uint8 ``[B, H, W, 3]``; the rest is as in :mod:`patchline.runtime.graph`."""
        given = {
            "head.search.bank": memory_bank,
            "head.search.squares": bank_squares,
            "head.noise.mean": bank_statistics[0],
            "head.noise.std": bank_statistics[1],
            "head.duplicate_distance": bank_statistics[2],
        }
        if bank_neighbors is not None:
            given["head.score.around"] = bank_neighbors
        outputs: Outputs = torch.func.functional_call(self.detector, given, (frames,))
        return outputs


def check_external(rows: int, neighbors: int, score: str) -> None:
    """Refuse a bank too small for a graph that does not know it.

    Args:
        rows: of the bank.
        neighbors: k that was asked for.
        score: name of the score.

    Raises:
        ConfigurationError: a bank of its own would lower the number of neighbours.
    """
    least = max(neighbors, ROW_NEIGHBORS) if BANK_NEIGHBORS in bank_inputs(score) else neighbors
    if rows < least:
        raise ConfigurationError(
            f"the memory bank has {rows} rows, and a graph that serves every product needs at "
            f"least {least}, as many as neighbours. Raise --coreset-ratio, give more pictures, or "
            "export with --bank embedded"
        )


def bank_tensors(head: AnomalyHead) -> dict[str, npt.NDArray[Any]]:
    """What a head's own bank is as inputs of the graph, filled up to as many groups as it needs."""
    search = head.search
    own = search.get_buffer("bank")
    fill = max(len(own), GROUP_ROWS * _least_groups(head)) - len(own)
    tensors = {
        MEMORY_BANK: nn.functional.pad(own, (0, 0, 0, fill)),
        BANK_SQUARES: nn.functional.pad(search.get_buffer("squares"), (0, fill), value=FAR),
        BANK_STATISTICS: torch.stack(
            [
                head.noise.get_buffer("mean"),
                head.noise.get_buffer("std"),
                head.get_buffer("duplicate_distance"),
            ]
        ),
    }
    if isinstance(head.score, PatchCore):
        around = head.score.get_buffer("around")
        # A row that only fills up is nobody's nearest, so it does not matter what lies around it.
        tensors[BANK_NEIGHBORS] = nn.functional.pad(around, (0, 0, 0, fill))
    return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in tensors.items()}


def graph_inputs(head: AnomalyHead) -> dict[str, DynamicInput]:
    """The graph's inputs after ``frames``, for tracing; the head's own bank has no part in it."""
    least, bank = _least_groups(head), head.search.get_buffer("bank")
    rows = GROUP_ROWS * (least + 1)  # one group more than the least, which would be taken as fixed
    groups = GROUP_ROWS * torch.export.Dim("groups", min=least, max=LARGEST_GROUPS)
    example = torch.zeros(rows, bank.shape[1], dtype=bank.dtype)
    inputs = {
        MEMORY_BANK: DynamicInput(example, {0: groups}),
        BANK_SQUARES: DynamicInput(torch.zeros(rows), {0: groups}),
        BANK_STATISTICS: DynamicInput(torch.zeros(3), {}),
    }
    if isinstance(head.score, PatchCore):
        neighbors = torch.zeros(rows, ROW_NEIGHBORS, dtype=torch.int64)
        inputs[BANK_NEIGHBORS] = DynamicInput(neighbors, {0: groups})
    return inputs


def _least_groups(head: AnomalyHead) -> int:
    return least_bank_rows(head.search.k, head.bank_precision) // GROUP_ROWS
