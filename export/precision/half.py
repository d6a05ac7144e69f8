"""The fitted model in half precision: backbone, and the bank where asked (DESIGN sections 4, 5).

It is made in torch, before the export, because a converted graph is refused by TensorRT. Frames
stay uint8 and outputs float32; normalisation, averaging, distances, influence, noise, statistics
and maps are float32 as ever.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from patchline.export.detector import AnomalyHead, Detector
from patchline.export.parity import Tolerances
from patchline.runtime.contract import BankPrecision, DistanceStatistics, ModelSize

DUPLICATE_SHARE = 1e-2
"""Neighbours nearer than this share of a bank row's mean norm count as the patch itself.

Two runtimes' half backbones differ by 0.15 % of it on average and 0.4 % at most (ResNet-18, torch
and ONNX Runtime), and rows are stored to 0.03 %. Normal patches of bottle lie at 20 %.
"""

HALF_TOLERANCES = Tolerances(image_score=1e-2, anomaly_map=5e-2, influence_map=0.25, batch=1e-2)
"""Of an exported file against :func:`half_detector`, five times what was measured.

torch rounds every tensor to half and ONNX Runtime's CPU hardly any. With real ResNet-18 features
of bottle and pill that moved scores by up to 0.2 %, maps by 1.2 % of their largest value and the
influence of single patches, whose neighbours change, by 0.06.
"""


class HalfNetwork(nn.Module):
    """A backbone in half precision between two casts.

    Args:
        network: gives feature maps; it becomes half itself.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Normalised frames float32 ``[B, 3, H, W]`` -> its feature maps, float32."""
        return [features.float() for features in self.network(frames.half())]


def half_detector(detector: Detector, *, bank: BankPrecision) -> Detector:
    """The same model with its backbone in half precision.

    It is exported, embedded or external, as any detector is.

    Args:
        detector: in float32, on the CPU; it is left alone.
        bank: how the memory bank is stored and searched.

    Raises:
        ConfigurationError: the bank's rows are too long for products in half precision.
    """
    embedder = copy.deepcopy(detector.embedder)
    embedder.network = HalfNetwork(embedder.network)
    return Detector(embedder, _head(detector.head, embedder.size, bank))


def _head(head: AnomalyHead, size: ModelSize, bank: BankPrecision) -> AnomalyHead:
    search = head.search
    mean, std = (float(head.noise.get_buffer(name)) for name in ("mean", "std"))
    return AnomalyHead(
        search.get_buffer("bank")[: search.rows].clone(),
        DistanceStatistics(mean=mean, std=std),
        head.grid,
        size,
        score=head.score_name,
        neighbors=search.k,
        bank_precision=bank,
        duplicate_share=DUPLICATE_SHARE,
    )
