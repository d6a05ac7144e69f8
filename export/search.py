"""Which search a model ships with: exact, or pruned where that is faster and finds the same.

A pruned search is let out only past a check on good pictures. Each is judged by both searches in
the bank without its own rows, so that its patches are as strange to the bank as those of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from patchline.export.config import FitSettings
from patchline.export.detector import AnomalyHead
from patchline.export.features import read_frames
from patchline.export.fit import FittedModel
from patchline.export.neighbors import NearestNeighbors
from patchline.export.precision.evidence import own_rows_of
from patchline.export.precision.form import Form
from patchline.export.pruned import deeper_plans, default_plan
from patchline.export.ties import TIE_SHARE
from patchline.runtime.contract import FoundNeighbors, Manifest, PrunedSearch
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.progress import Steps

LEAST_ROWS = 8192
"""Banks of so many rows are searched by estimates first, unless told otherwise.

Measured in ONNX Runtime on two cores (benchmarks/search.py): a frame takes as long either way at
3,600 rows with a ResNet-18 and at 2,100 with a WideResNet-50. A few percent are not worth an
approximation; at 8,192 rows it saves 20 and 24 %.
"""

LEAST_ROWS_DEEPER = 2 * LEAST_ROWS
"""Banks of so many rows are worth a plan that costs more, where the default misses too much."""

IMAGES_COMPARED = 8
LEAST_NEAREST = 0.999
LEAST_ALL = 0.99
LARGEST_SCORE_CHANGE = 2e-3
"""In parts of the threshold, or of the score where that is larger."""

_TINY = 1e-12


@dataclass(frozen=True)
class SearchChoice:
    """How the bank is searched, and why not pruned where it might have been."""

    plan: PrunedSearch | None
    problems: tuple[str, ...] = ()

    def noted_in(self, manifest: Manifest) -> Manifest:
        """The manifest with this in its memory bank."""
        noted = {"search": self.plan, "search_problems": self.problems}
        bank = manifest.required_bank().model_copy(update=noted)
        return manifest.model_copy(update={"memory_bank": bank})


def choose_search(
    fitted: FittedModel, form: Form, settings: FitSettings, steps: Steps
) -> SearchChoice:
    """Choose how a model with its bank in the graph searches it.

    Args:
        fitted: the float32 model.
        form: what is exported of it.
        settings: ``auto`` prunes banks in float32 of :data:`LEAST_ROWS` rows and more, by the
            first of the plans in which the check finds no problem; from :data:`LEAST_ROWS_DEEPER`
            rows on there are several.
        steps: shows progress.

    Raises:
        ConfigurationError: the settings ask for a pruned search, and the check finds a problem.
    """
    is_large = len(fitted.memory_bank) >= LEAST_ROWS and form.bank == "fp32"
    if settings.search == "exact" or (settings.search == "auto" and not is_large):
        return SearchChoice(None)
    plans = _plans(fitted.memory_bank, form.detector.head.search.k)
    problems: tuple[str, ...] = ()
    expected = _judge_exactly(fitted, form, max(plan.candidates for plan in plans), steps)
    for plan in plans:
        found, changed = _compare(expected, fitted, form, plan, steps)
        problems = _problems(found, changed)
        if not problems:
            return SearchChoice(plan.model_copy(update={"found": found}))
    if settings.search == "pruned":
        raise ConfigurationError(
            f"a pruned search misses too much in this bank: {'; '.join(problems)}. Export with "
            "--search exact"
        )
    return SearchChoice(None, problems)


def _plans(memory_bank: Tensor, k: int) -> tuple[PrunedSearch, ...]:
    rows, dimension = memory_bank.shape
    deeper = deeper_plans(dimension, k) if rows >= LEAST_ROWS_DEEPER else ()
    return (default_plan(dimension, k), *deeper)


def compare_searches(
    fitted: FittedModel, form: Form, plan: PrunedSearch, steps: Steps
) -> tuple[FoundNeighbors, int]:
    """What a pruned search finds on good pictures, and how many of their verdicts it changes.

    Args:
        fitted: the float32 model. Where it does not say which picture a row came from, or has too
            few other rows, pictures are judged by the whole bank.
        form: what is exported of it, with a bank in float32.
        plan: of the search.
        steps: shows progress.
    """
    return _compare(_judge_exactly(fitted, form, plan.candidates, steps), fitted, form, plan, steps)


@dataclass(frozen=True)
class _Expected:
    """A picture by the exact search: its patch embeddings ``[1, h, w, D]``, the rows of the bank
    that are its own ``[M]``, distances of its neighbours ``[P, k]`` and image score."""

    embeddings: Tensor
    own: Tensor
    distances: Tensor
    score: float


@torch.inference_mode()
def _judge_exactly(
    fitted: FittedModel, form: Form, least: int, steps: Steps
) -> tuple[_Expected, ...]:
    """A few good pictures, each in the bank without its own rows where ``least`` others are."""
    paths = fitted.pictures.paths[:: max(1, len(fitted.pictures.paths) // IMAGES_COMPARED)]
    paths, head, expected = paths[:IMAGES_COMPARED], form.detector.head, []
    with steps.step("Judging by the exact search", len(paths)) as advance:
        for path in paths:
            frame = torch.from_numpy(read_frames((path,), form.detector.embedder.size))
            embeddings, own = form.detector.embedder(frame), _own_rows(fitted, path, least)
            distances, score = _judged(head, head.search, embeddings, own)
            expected.append(_Expected(embeddings, own, distances, score))
            advance(len(expected))
    return tuple(expected)


@torch.inference_mode()
def _compare(
    expected: tuple[_Expected, ...],
    fitted: FittedModel,
    form: Form,
    plan: PrunedSearch,
    steps: Steps,
) -> tuple[FoundNeighbors, int]:
    exact, pruned = form.detector.head, replace(form, search=plan).shipped.head.search
    tie = TIE_SHARE * exact.mean_norm
    compared = _Compared(fitted.threshold.value)
    with steps.step("Comparing a pruned search", len(expected)) as advance:
        for done, picture in enumerate(expected, 1):
            found, score = _judged(exact, pruned, picture.embeddings, picture.own)
            compared.add(picture.distances + tie, found, picture.score, score)
            advance(done)
    return compared.found(len(expected)), compared.verdicts


def _judged(
    head: AnomalyHead, search: NearestNeighbors, embeddings: Tensor, own: Tensor
) -> tuple[Tensor, float]:
    """Distances ``[P, k]`` of the neighbours that a search finds, and the image score by them."""
    rows = embeddings.flatten(0, 2)
    found = _search_without(own, search, rows)
    return head.influence(rows, found).distances, float(head.judge(embeddings, found)[0])


@dataclass
class _Compared:
    """Counts over pictures."""

    threshold: float
    patches: int = 0
    nearest: int = 0
    all: int = 0
    verdicts: int = 0
    score_change: float = 0.0

    def add(self, reach: Tensor, distances: Tensor, expected: float, found: float) -> None:
        """A picture: how far its neighbours lie at most and how far those lie that the pruned
        search found, both ``[P, k]``; and its image score by either search."""
        is_found = distances <= reach
        self.patches += len(is_found)
        self.nearest += int(is_found[:, 0].sum())
        self.all += int(is_found.all(1).sum())
        self.verdicts += (expected >= self.threshold) != (found >= self.threshold)
        change = abs(expected - found) / max(abs(self.threshold), abs(expected), _TINY)
        self.score_change = max(self.score_change, change)

    def found(self, images: int) -> FoundNeighbors:
        """The shares."""
        return FoundNeighbors(
            images=images,
            nearest=self.nearest / self.patches,
            all=self.all / self.patches,
            image_score_change=self.score_change,
        )


def _own_rows(fitted: FittedModel, path: Path, least: int) -> Tensor:
    """Rows of the bank to leave out for a picture, bool ``[M]``; ``least`` others are left."""
    none = torch.zeros(len(fitted.memory_bank), dtype=torch.bool)
    if fitted.row_pictures is None:
        return none
    own = torch.from_numpy(own_rows_of(fitted)(path))
    return own if len(own) - int(own.sum()) >= least else none


def _search_without(own: Tensor, search: NearestNeighbors, rows: Tensor) -> Tensor:
    """Neighbours ``[P, k]`` of patches ``[P, D]`` among the rows of the bank that are not own."""
    with search.without(own):
        found: Tensor = search(rows)
    return found


def _problems(found: FoundNeighbors, verdicts: int) -> tuple[str, ...]:
    problems = []
    if found.nearest < LEAST_NEAREST:
        problems.append(_too_few("the nearest row", found.nearest, LEAST_NEAREST))
    if found.all < LEAST_ALL:
        problems.append(_too_few("all nearest rows", found.all, LEAST_ALL))
    if found.image_score_change > LARGEST_SCORE_CHANGE:
        problems.append(
            f"an image score changes by {found.image_score_change:.2%} of the threshold, at most "
            f"{LARGEST_SCORE_CHANGE:.2%} is accepted"
        )
    if verdicts:
        problems.append(f"{verdicts} of {found.images} verdicts change")
    return tuple(problems)


def _too_few(what: str, share: float, least: float) -> str:
    return f"{what} of {share:.2%} of the patches is found, at least {least:.2%} is accepted"
