"""Whether the forms that ``benchmarks.influence`` times give the same answer.

A benchmark of different answers is worth nothing, so a difference beyond what a form's own error
explains is raised, not reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from patchline.benchmarks.influence_forms import Question
from patchline.runtime.errors import ConfigurationError, ParityError

EXACT_TOLERANCE = 1e-5
"""For autograd and the exported graph; no entry of a Jacobian is larger than 1."""

_ROUNDING = 8 * torch.finfo(torch.float32).eps

FORWARD, CENTRAL = "loop, forward", "loop, central"
"""How the names of loops begin; a form of any other name is held to :data:`EXACT_TOLERANCE`."""


def check_agreement(
    expected: Tensor, runs: Mapping[str, Callable[[], Tensor]], question: Question
) -> dict[str, Any]:
    """Largest difference of every form from ``expected``.

    Only patches are compared whose k nearest rows neither rounding nor the step can change: no
    distance moves by more than the step, and where the next row comes nearer than two steps, the
    forms may rightly differ.

    Args:
        expected: ``[N, D]``, of the closed form.
        runs: by name; loops give ``[N, C]``, the others ``[N, D]``.
        question: what they were asked.

    Raises:
        ParityError: a form differs by more than its error allows.
        ConfigurationError: fewer than half of the patches can be compared.
    """
    distances, decided = _decided(question)
    allowed = _allowed_errors(distances[decided], question.step)
    errors = {}
    for name, run in runs.items():
        columns = question.channels if "loop" in name else slice(None)
        difference = (run() - expected[:, columns])[decided].abs().amax(1)
        errors[name] = _checked(name, difference, allowed[_kind(name)])
    return {
        "patches_compared": int(decided.sum()),
        "step": float(f"{question.step:.4g}"),
        "max_difference_from_closed_form": errors,
    }


def _decided(question: Question) -> tuple[Tensor, Tensor]:
    """Distances float64 ``[N, k]`` to the nearest rows, and bool ``[N]``: which are certain."""
    k = question.search.k
    bank = question.memory_bank.double()
    # One row infinitely far, so that there is a next one where k takes the whole bank.
    distances = torch.cdist(question.embeddings.double(), bank)
    distances = torch.nn.functional.pad(distances, (0, 1), value=torch.inf)
    nearest = distances.topk(k + 1, dim=1, largest=False).values
    decided = nearest[:, k] - nearest[:, k - 1] > 2 * question.step
    if 2 * int(decided.sum()) < len(decided):
        raise ConfigurationError(
            f"a step of {question.step:.2g} can change the {k} nearest rows of all but"
            f" {int(decided.sum())} of {len(decided)} patches, expected of less than half;"
            " ask for fewer rows or more channels"
        )
    return nearest[:, :k], decided


def _kind(name: str) -> str:
    return next((kind for kind in (FORWARD, CENTRAL) if kind in name), "exact")


def _allowed_errors(distances: Tensor, step: float) -> dict[str, Tensor]:
    # Truncation: along one channel the second derivative of a distance d is at most 1 / d and the
    # third 2 / (sqrt(3) d^2). Rounding: that of two distances, over the step.
    nearest = (distances[:, 0] - step).clamp_min(torch.finfo(distances.dtype).tiny)
    rounding = _ROUNDING * distances.mean(1) / step
    return {
        "exact": torch.full_like(nearest, EXACT_TOLERANCE),
        FORWARD: step / (2 * nearest) + rounding,
        CENTRAL: step**2 / (3 * math.sqrt(3) * nearest**2) + rounding,
    }


def _checked(name: str, difference: Tensor, allowed: Tensor) -> float:
    # Asked this way round, NaN is no agreement.
    if not bool((difference <= allowed).all()):
        raise ParityError(
            f"{name}: differs from the closed form by up to {float(difference.max()):.2g}, expected"
            f" at most {float(allowed.max()):.2g}; times of different answers say nothing"
        )
    return float(f"{float(difference.max()):.3g}")
