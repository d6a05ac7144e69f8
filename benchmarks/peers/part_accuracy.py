"""Accuracy on labelled classes: every peer's scores and maps, judged by one evaluator, ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from patchline.benchmarks.peers.catalogue import PATCHLINE_MAKER, Peer
from patchline.benchmarks.peers.material import Plan, shared
from patchline.benchmarks.peers.part_fit import fit_once, fitted_folder
from patchline.benchmarks.peers.record import Record, Row
from patchline.export.evaluation.aupro import aupro, pro_curve, region_overlaps
from patchline.export.evaluation.image_metrics import image_ranking
from patchline.export.evaluation.pixel_counts import count_pixels, pixel_ranking
from patchline.export.evaluation.test_set import TestSet, load_test_set
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import DataError


def measure_accuracy(plan: Plan, peers: list[Peer]) -> dict[str, Any]:
    """Rows per class, ratio and peer; models come from the fits, which are done where missing."""
    record = Record(plan.say)
    for ratio in plan.ratios:
        for class_name in plan.classes:
            failed: set[str] = set()
            for peer in peers:
                setting = {"peer": peer.name, "class_name": class_name, "coreset_ratio": ratio}
                if peer.maker.name in failed:  # a fit that took too long is not tried twice
                    reason = "the fit of its model failed, see above"
                    record.failed.append({**setting, "reason": reason})
                    continue
                found = record.attempt(
                    setting,
                    lambda peer=peer, name=class_name, ratio=ratio: _measure(  # type: ignore[misc]
                        plan, peer, name, ratio
                    ),
                )
                if found is None:
                    failed.add(peer.maker.name)
                else:
                    record.rows.append({**setting, **found})
    return record.document(
        what="test pictures through each peer's own preprocessing; metrics by one evaluator",
        aupro_fpr_limit=0.3,
    )


def _measure(plan: Plan, peer: Peer, class_name: str, ratio: float) -> Row:
    folder = _model(plan, peer, class_name, ratio)
    size = ModelSize(height=plan.image_px, width=plan.image_px)
    tests = load_test_set(plan.data, class_name, size)
    out = (plan.work / "scores" / f"{peer.name}-{class_name}-{ratio:g}.npz").resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    plan.say(f"scores of {peer.name}, {class_name}, ratio {ratio:g}")
    with plan.judge(peer) as worker:
        worker.ask("load", folder=str(folder), threads=plan.threads)
        pictures = [str(test.path.resolve()) for test in tests.pictures]
        worker.ask("score", pictures=pictures, out=str(out))
    return evaluate(out, tests)


def _model(plan: Plan, peer: Peer, class_name: str, ratio: float) -> Path:
    """The fitted model; with another score where the peer has one."""
    folder = fitted_folder(plan, peer.maker, class_name, ratio)
    if not (folder / "made.json").exists():
        fit_once(plan, peer.maker, class_name, ratio)
    if peer.maker is not PATCHLINE_MAKER or peer.score is None:
        return folder
    other = folder / peer.score
    if not (other / "made.json").exists():
        other.mkdir(exist_ok=True)
        with plan.maker(peer.maker) as worker:
            worker.ask(
                "rescore",
                folder=str(folder),
                out=str(other),
                score=peer.score,
                pictures=plan.pictures(class_name),
                backbone=plan.backbones[0],
                state=shared(plan, plan.backbones[0]).state,
                image_px=plan.image_px,
            )
        (other / "made.json").write_text("{}")
    return other


def evaluate(file: Path, tests: TestSet) -> Row:
    """Metrics of ``scores [N]`` and ``maps [N, H, W]`` in the order of the test set.

    Raises:
        DataError: there are others than the test set has pictures, or a metric is not defined.
    """
    with np.load(file) as found:
        scores, maps = found["scores"], found["maps"]
    if not len(scores) == len(maps) == len(tests.pictures):
        raise DataError(f"{len(tests.pictures)} test pictures, {len(scores)} scores in {file.name}")
    if not np.isfinite(scores).all():
        raise DataError(f"{file.name} holds a score that is NaN or infinite")
    labels = np.array([picture.is_defective for picture in tests.pictures], bool)
    images = image_ranking(scores.astype(np.float64), labels)
    row: Row = {"image_auroc": round(images.auroc, 5), "image_ap": round(images.ap, 5)}
    if not tests.masks:
        return row
    pairs = list(zip(tests.pictures, maps, strict=True))
    defective = [(item, tests.masks[p.path]) for p, item in pairs if p.is_defective]
    counts = count_pixels(defective, [item for p, item in pairs if not p.is_defective])
    curve = pro_curve(counts, region_overlaps(defective, counts.levels))
    pixels = pixel_ranking(counts)
    row |= {"pixel_auroc": round(pixels.auroc, 5), "pixel_ap": round(pixels.ap, 5)}
    return row | {"aupro": round(aupro(curve), 5)}
