"""Patches whose k-th and next neighbour are equally far but for rounding: two right answers.

The mean distance hardly notices which of the two is taken, its Jacobian does. Two runtimes round
the ranking differently and may each pick another one, so a comparison of them has to allow for
what that changes, at those patches and nowhere else. Likewise for the last candidate of a pruned
search and the first row that is none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from patchline.export.detector import AnomalyHead, Detector
from patchline.export.neighbors import NearestNeighbors
from patchline.export.pruned import PrunedNearestNeighbors
from patchline.runtime.preprocess import Frame

TIE_SHARE = 2e-5
"""Distances that differ by less than this share of the bank's mean norm are tied.

Two runtimes' backbones differ by about 1e-5 of it; and products rank squared distances to about
1e-6 of its square, which counts where a patch lies near its rows.
"""

_RIVALS = 4  # neighbours past the k-th, and candidates past the last, that are looked at
_ROUNDING = 1e-6  # of a squared distance, in parts of the bank's squared mean norm

_Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TieAllowance:
    """By how much each output may differ because of ties alone.

    Attributes:
        patches: tied patches.
        outputs: float32 ``[B]``, ``[B, H, W]``, ``[B, H, W]``, in the contract's order.
    """

    patches: int
    outputs: tuple[_Values, _Values, _Values]


@torch.inference_mode()
def tie_allowance(detector: Detector, frames: Frame) -> TieAllowance:
    """What ties allow for frames uint8 ``[B, H, W, 3]``."""
    head = detector.head
    embeddings = detector.embedder(torch.from_numpy(frames))
    rows = embeddings.flatten(0, 2)
    grid = embeddings.shape[:3]
    nearest = _more_neighbors(head, rows)
    distances = _distances(head, rows, nearest)
    tied = _tied_rows(distances, head)
    scores, influence = torch.zeros(len(rows)), torch.zeros(len(rows))
    if len(tied):
        scores[tied], influence[tied] = _changes(head, rows[tied], nearest[tied], distances[tied])
    cut = _cut_rows(head, rows, distances)
    if len(cut):
        for total, change in zip((scores, influence), _cut_changes(head, rows[cut]), strict=True):
            total[cut] += change
    changes = (
        _image_change(head, rows, nearest, distances, scores.view(grid)),
        head.to_anomaly_map(scores.view(grid)),
        head.to_influence_map(influence.view(grid)),
    )
    first, second, third = (change.numpy() for change in changes)
    patches = {*tied.tolist(), *cut.tolist()}
    return TieAllowance(len(patches), (first, second, third))


def _more_neighbors(head: AnomalyHead, rows: Tensor) -> Tensor:
    bank = head.search.get_buffer("bank")[: head.search.rows].float()
    found: Tensor = NearestNeighbors(bank, head.search.k + _RIVALS)(rows)
    return found


def _distances(head: AnomalyHead, rows: Tensor, nearest: Tensor) -> Tensor:
    parts = [
        (rows[start : start + 256].unsqueeze(1) - head.search.gather(nearest[start : start + 256]))
        for start in range(0, len(rows), 256)
    ]
    return torch.cat([part.norm(dim=2) for part in parts])


def _tied_rows(distances: Tensor, head: AnomalyHead) -> Tensor:
    k = head.search.k
    if distances.shape[1] <= k:  # the bank holds no rival
        return torch.empty(0, dtype=torch.int64)
    return _are_tied(distances[:, k - 1], distances[:, k], head).nonzero().flatten()


def _are_tied(near: Tensor, far: Tensor, head: AnomalyHead) -> Tensor:
    """Whether two distances are equal but for rounding; near a row, that of products counts."""
    return far.square() - near.square() <= _slack(near, head)


def _slack(distances: Tensor, head: AnomalyHead) -> Tensor:
    """What rounding makes of squared distances."""
    return 2 * TIE_SHARE * head.mean_norm * distances + _ROUNDING * head.mean_norm**2


def _cut_rows(head: AnomalyHead, rows: Tensor, distances: Tensor) -> Tensor:
    """Patches where rounding may decide which row is a pruned search's last candidate."""
    if not isinstance(head.search, PrunedNearestNeighbors):
        return torch.empty(0, dtype=torch.int64)
    gap = head.search.last_gap(rows)
    return (gap <= _slack(distances[:, -1], head)).nonzero().flatten()


def _cut_changes(head: AnomalyHead, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Changes of score and influence norm ``[n]`` that a few candidates more and less bring."""
    search = head.search
    if not isinstance(search, PrunedNearestNeighbors):
        raise TypeError("only a pruned search has candidates")
    counts = (max(search.k, search.candidates - _RIVALS), search.candidates + _RIVALS)
    before = head.patches(rows, search(rows))
    scores, norms = torch.zeros(len(rows)), torch.zeros(len(rows))
    for count in counts:
        after = head.patches(rows, search.among(rows, min(count, search.rows)))
        scores += (head.score.patch_scores(after) - head.score.patch_scores(before)).abs()
        norms += (after.influence.norm - before.influence.norm).abs()
    return scores, norms


def _changes(
    head: AnomalyHead, rows: Tensor, nearest: Tensor, distances: Tensor
) -> tuple[Tensor, Tensor]:
    """Largest changes of score and influence norm ``[n]`` that other choices bring."""
    k = head.search.k
    before = head.patches(rows, nearest[:, :k])
    scores, norms = head.score.patch_scores(before), before.influence.norm
    score_change, norm_change = torch.zeros(len(rows)), torch.zeros(len(rows))
    for rival in range(k, distances.shape[1]):
        # What an exchange with each of the k brings at most, times the rivals that are tied.
        reach = _are_tied(distances[:, k - 1], distances[:, rival], head)
        score_at_most, norm_at_most = torch.zeros(len(rows)), torch.zeros(len(rows))
        for place in range(k):
            swapped = nearest[:, :k].clone()
            swapped[:, place] = nearest[:, rival]
            after = head.patches(rows, swapped)
            open_ = reach & _are_tied(distances[:, place], distances[:, k - 1], head)
            change = (head.score.patch_scores(after) - scores).abs() * open_
            score_at_most = torch.maximum(score_at_most, change)
            norm_at_most = torch.maximum(norm_at_most, (after.influence.norm - norms).abs() * open_)
        score_change += score_at_most
        norm_change += norm_at_most
    return score_change, norm_change


def _image_change(
    head: AnomalyHead, rows: Tensor, nearest: Tensor, distances: Tensor, change: Tensor
) -> Tensor:
    """By how much image scores ``[B]`` may differ, from changes of patch scores ``[B, h, w]``."""
    indices = nearest[:, : head.search.k]
    patches = head.patches(rows, indices)
    scores = head.score.patch_scores(patches).view(change.shape)
    anomaly_map, map_change = head.to_anomaly_map(scores), head.to_anomaly_map(change)
    # An image score is the largest of either; ties elsewhere do not move it.
    largest = torch.maximum(
        _change_of_largest(anomaly_map, map_change), _change_of_largest(scores, change)
    )
    swapped = _nearest_swapped(head, indices, distances)
    found, other = (
        head.score.image_scores(scores.flatten(1), anomaly_map, replace(patches, indices=chosen))
        for chosen in (indices, swapped)
    )
    return largest + (found - other).abs()


def _change_of_largest(values: Tensor, change: Tensor) -> Tensor:
    """By how much the largest of ``values [B, ...]`` moves if each may move by ``change``."""
    axes = (1, 2)
    before = values.amax(axes)
    return torch.maximum(
        (values + change).amax(axes) - before, before - (values - change).amax(axes)
    )


def _nearest_swapped(head: AnomalyHead, indices: Tensor, distances: Tensor) -> Tensor:
    """``indices [N, k]`` with the nearest two exchanged where they tie: PatchCore's weight looks
    at what lies around the nearest."""
    swapped = indices.clone()
    if head.search.k > 1:
        tied = _are_tied(distances[:, 0], distances[:, 1], head)
        swapped[tied, :2] = indices[tied, :2].flip(1)
    return swapped
