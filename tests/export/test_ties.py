"""Two right answers: ties are found, what they allow is enough, and it is no more than that."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from patchline.export import parity, ties
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.fit import FittedModel
from patchline.export.onnx_graph import save_onnx, to_onnx
from patchline.export.parity import Tolerances, verify_parity
from patchline.export.scores import SCORES
from patchline.export.ties import TIE_SHARE, TieAllowance, tie_allowance
from patchline.runtime.contract import DistanceStatistics, ModelSize
from patchline.runtime.errors import ParityError
from patchline.runtime.preprocess import Frame

from .drawn import QUICK

GRID, DIMENSION, K = (4, 4), 12, 3
SIZE = ModelSize(height=32, width=32)


class Given(nn.Module):
    """An embedder that knows its answer."""

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, frames: Tensor) -> Tensor:
        return self.embeddings


def detector_of(embeddings: Tensor, bank: Tensor, score: str = "noise-response") -> Detector:
    statistics = DistanceStatistics(mean=1.0, std=0.5)
    head = AnomalyHead(bank, statistics, GRID, SIZE, score=score, neighbors=K)
    return Detector(Given(embeddings), head)  # type: ignore[arg-type]


def scene(gap: float, rivals: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """One frame of random patches; in the bank, patch 5 has rivals ``gap`` behind its k-th."""
    generator = torch.Generator().manual_seed(seed)
    rows = 4 * torch.randn(16, DIMENSION, generator=generator)
    bank = 4 * torch.randn(60, DIMENSION, generator=generator)
    directions = nn.functional.normalize(torch.randn(K + rivals, DIMENSION, generator=generator))
    distances = [0.5 + 0.1 * i for i in range(K)]
    distances += [distances[-1] + gap] * rivals
    near = rows[5] + directions * torch.tensor(distances).unsqueeze(1)
    return rows.view(1, *GRID, DIMENSION), torch.cat([bank, near])


def allow(detector: Detector) -> TieAllowance:
    return tie_allowance(detector, np.zeros((1, 32, 32, 3), np.uint8))


def all_choices(detector: Detector, rows: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The outputs of every choice of k among the tied neighbours of patch 5, by brute force."""
    head = detector.head
    bank = head.search.get_buffer("bank")[: head.search.rows]
    distances = torch.cdist(rows.double(), bank.double())
    order = distances.argsort(1)
    within = TIE_SHARE * head.mean_norm
    sorted_ = distances.gather(1, order)[5]
    sure = [i for i in range(K) if sorted_[K - 1] - sorted_[i] > within]
    open_ = [
        i for i in range(len(bank)) if i not in sure and abs(sorted_[i] - sorted_[K - 1]) <= within
    ]
    found = []
    for chosen in itertools.combinations(open_, K - len(sure)):
        indices = order[:, :K].clone()
        indices[5] = order[5, [*sure, *chosen]]
        found.append(head.judge(rows.view(1, *GRID, DIMENSION), indices))
    return found


@pytest.mark.parametrize("score", sorted(SCORES))
@pytest.mark.parametrize("rivals", [1, 2, 3])
def test_every_choice_lies_within_what_is_allowed(score: str, rivals: int) -> None:
    embeddings, bank = scene(1e-6, rivals)
    detector = detector_of(embeddings, bank, score)
    found = allow(detector)
    assert found.patches == 1
    choices = all_choices(detector, embeddings.flatten(0, 2))
    assert len(choices) == 1 + rivals
    for one, other in itertools.combinations(choices, 2):
        for a, b, allowed in zip(one, other, found.outputs, strict=True):
            # Twice: either of the two may be the one the allowance was measured from.
            assert ((a - b).abs().numpy() <= 2 * allowed + 1e-6).all()
    differences = [(choices[0][2] - other[2]).abs().max() for other in choices[1:]]
    assert max(differences) > 1e-3  # the influence really notices


def test_it_allows_nothing_where_nothing_is_tied() -> None:
    found = allow(detector_of(*scene(0.05)))
    assert found.patches == 0
    assert all((allowed == 0).all() for allowed in found.outputs)


def test_it_allows_nothing_far_from_the_tied_patch() -> None:
    _, heat, influence = allow(detector_of(*scene(1e-6))).outputs
    assert heat[0, 12, 12] > 0 and influence[0, 12, 12] > 0  # patch 5 is row 1, column 1
    assert (heat[0, 28:, 28:] == 0).all() and (influence[0, 28:, 28:] == 0).all()


def test_an_image_score_is_allowed_nothing_where_its_worst_patch_is_not_tied() -> None:
    # Patch 5 lies near its rows, and all others far from any.
    embeddings, bank = scene(1e-6)
    detector = detector_of(embeddings, bank)
    scores, heat, _ = allow(detector).outputs
    assert heat.max() > 0 and scores[0] == 0


def test_it_allows_no_more_than_the_exchange_changes() -> None:
    embeddings, bank = scene(1e-6)
    detector = detector_of(embeddings, bank)
    one, other = all_choices(detector, embeddings.flatten(0, 2))
    _, heat, influence = allow(detector).outputs
    assert heat.max() <= 1.05 * float((one[1] - other[1]).abs().max()) + 1e-6
    assert influence.max() <= 1.05 * float((one[2] - other[2]).abs().max()) + 1e-6


def test_a_bank_without_rivals() -> None:
    embeddings, bank = scene(1e-6)
    assert allow(detector_of(embeddings, bank[:K])).patches == 0


def test_patchcore_may_take_another_nearest_row() -> None:
    """Its weight looks at what lies around the nearest row of the worst patch."""
    embeddings, bank = scene(1.0)
    rows = embeddings.flatten(0, 2)
    nearest = torch.cdist(rows, bank).amin(1)
    worst = int(nearest.argmax())
    direction = nn.functional.normalize(torch.ones(DIMENSION), dim=0)

    def with_rival(share: float) -> Detector:
        row = rows[worst] + (1 + share) * nearest[worst] * direction
        return detector_of(embeddings, torch.cat([bank, row[None]]), "patchcore")

    first, second = with_rival(-1e-6), with_rival(1e-6)
    frames = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    difference = float((first.predict(frames)[0] - second.predict(frames)[0]).abs())
    assert difference > 0.01
    assert difference <= float(allow(second).outputs[0][0]) + 1e-4


@pytest.fixture
def rival(fitted: FittedModel, seven_frames: Frame) -> Callable[[float], Detector]:
    """The fitted detector with one more row: so many tie widths past the k-th of one patch."""

    def make(widths: float) -> Detector:
        embedder, head = fitted.detector.embedder, fitted.detector.head
        with torch.inference_mode():
            rows = embedder(torch.from_numpy(seven_frames)).flatten(0, 2)
        patch = rows[100]
        kth = head.influence(patch[None], head.search(patch[None])).distances[0, -1]
        direction = nn.functional.normalize(
            torch.randn(len(patch), generator=torch.Generator().manual_seed(1)), dim=0
        )
        distance = kth + widths * TIE_SHARE * head.mean_norm
        bank = torch.cat([fitted.memory_bank, (patch + distance * direction)[None]])
        return Detector(
            embedder,
            AnomalyHead(
                bank.clone(),
                fitted.statistics,
                embedder.grid,
                embedder.size,
                score=QUICK.score_name,
                neighbors=QUICK.neighbors,
            ),
        )

    return make


def test_a_file_that_takes_the_other_neighbour_is_accepted(
    rival: Callable[[float], Detector],
    seven_frames: Frame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What two runtimes did with real pictures, made certain: the exports differ by one choice."""
    nearer, farther = rival(-0.7), rival(0.7)
    path = tmp_path / "nearer.onnx"
    save_onnx(to_onnx(nearer, QUICK.model_size), path)
    strict = Tolerances(influence_map=1e-4)
    found = verify_parity(path, farther, seven_frames, strict)
    assert found.tied_patches >= 1
    nothing = TieAllowance(0, tuple(np.zeros(1, np.float32) for _ in range(3)))  # type: ignore[arg-type]
    monkeypatch.setattr(parity, "tie_allowance", lambda *_: nothing)
    with pytest.raises(ParityError, match="influence_map: differs"):
        verify_parity(path, farther, seven_frames, strict)


def test_a_file_that_takes_a_wrong_neighbour_is_not(
    rival: Callable[[float], Detector], seven_frames: Frame, tmp_path: Path
) -> None:
    nearer, farther = rival(-50), rival(50)
    path = tmp_path / "nearer.onnx"
    save_onnx(to_onnx(nearer, QUICK.model_size), path)
    with pytest.raises(ParityError, match="influence_map: differs"):
        verify_parity(path, farther, seven_frames, Tolerances(influence_map=1e-4))


def test_the_share_is_above_what_float32_ranks_to() -> None:
    assert 100 * np.finfo(np.float32).eps < ties.TIE_SHARE
