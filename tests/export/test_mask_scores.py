"""Which scores a mask may be used with: whether the image score is the largest value of the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from patchline.export.detector import AnomalyHead, Detector
from patchline.export.fit import FittedModel
from patchline.export.scores import SCORES
from patchline.runtime import contract
from patchline.runtime.decisions.mask import MAP_MAXIMUM_SCORES, Mask, score_within
from patchline.runtime.preprocess import Frame

from .drawn import QUICK

EVERYWHERE = Mask(np.ones((3, 4), bool), "everything")


def is_map_maximum(image_score: Any, anomaly_map: Any) -> bool:
    within = np.array([score_within(one, EVERYWHERE) for one in anomaly_map])
    return np.allclose(within, image_score, rtol=1e-6, atol=0)


@pytest.mark.parametrize("score", SCORES)
def test_the_list_is_what_the_scores_compute(
    score: str, fitted: FittedModel, seven_frames: Frame
) -> None:
    embedder = fitted.detector.embedder
    head = AnomalyHead(
        fitted.memory_bank,
        fitted.statistics,
        embedder.grid,
        embedder.size,
        score=score,
        neighbors=QUICK.neighbors,
    )
    with torch.inference_mode():
        found = Detector(embedder, head)(torch.from_numpy(seven_frames))
    image_score, anomaly_map = found[0].numpy(), found[1].numpy()
    assert is_map_maximum(image_score, anomaly_map) == (score in MAP_MAXIMUM_SCORES)
    # A mask puts 0 outside, which must be no more than any value.
    assert anomaly_map.min() >= 0 or score not in MAP_MAXIMUM_SCORES


def test_the_exported_graph_computes_it_too(exported: Path, seven_frames: Frame) -> None:
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    image_score, anomaly_map, _ = session.run(
        list(contract.OUTPUTS), {contract.FRAMES: seven_frames}
    )
    assert is_map_maximum(image_score, anomaly_map)
    assert QUICK.score_name in MAP_MAXIMUM_SCORES
