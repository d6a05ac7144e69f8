"""Who is measured: for each peer its environment, its worker script, and who makes its models."""

from __future__ import annotations

from dataclasses import dataclass

from patchline.runtime.errors import ConfigurationError

OWN = "patchline"
BENCHMARK = "benchmark"
"""Name of the environment that runs the benchmark itself; it has Patchline's training side."""


@dataclass(frozen=True)
class Maker:
    """Who fits and exports.

    Attributes:
        name: for folders and tables.
        environment: a virtual environment of :mod:`patchline.benchmarks.peers.environments`.
        script: a worker.
        is_linear: whether a pick of its coreset costs the same as any other.
    """

    name: str
    environment: str
    script: str
    is_linear: bool = True


@dataclass(frozen=True)
class Peer:
    """Who judges.

    Attributes:
        name: for tables.
        environment: as of a maker.
        script: a worker.
        maker: of its models.
        variant: of the script.
        score: of Patchline, ``None`` for its default and for all others.
        is_for_speed: ``False`` for a peer that only differs from another in its scores.
    """

    name: str
    environment: str
    script: str
    maker: Maker
    variant: str = "run"
    score: str | None = None
    is_for_speed: bool = True

    @property
    def models(self) -> str:
        """Folder name of its models: peers of one maker share them, unless the score differs."""
        return self.maker.name if self.score is None else self.name


PATCHLINE_MAKER = Maker(OWN, BENCHMARK, "worker_patchline_fit.py", is_linear=False)
_ANOMALIB = Maker("anomalib", "anomalib", "worker_anomalib.py")
_INSPECTION = Maker("patchcore-inspection", "patchcore-inspection", "worker_faiss.py")
_TORCH = Maker("torch", "torch", "worker_torch.py")


def _patchline(name: str, score: str | None, *, is_for_speed: bool = True) -> Peer:
    return Peer(
        name, OWN, "worker_patchline.py", PATCHLINE_MAKER, score=score, is_for_speed=is_for_speed
    )


PATCHLINE = (
    _patchline(OWN, None),
    _patchline("patchline-distance", "distance"),
    _patchline("patchline-patchcore", "patchcore", is_for_speed=False),
)
"""As it ships; with the peers' rule for patches; with anomalib's rule for images, too."""

OTHERS = {
    "anomalib": Peer(
        "anomalib-onnxruntime", "anomalib", "worker_anomalib.py", _ANOMALIB, "onnxruntime"
    ),
    "openvino": Peer("anomalib-openvino", "anomalib", "worker_anomalib.py", _ANOMALIB, "openvino"),
    "openvino-float32": Peer(
        "anomalib-openvino-float32", "anomalib", "worker_anomalib.py", _ANOMALIB, "openvino-float32"
    ),
    "patchcore-inspection": Peer(
        "patchcore-inspection", "patchcore-inspection", "worker_faiss.py", _INSPECTION
    ),
    "torch": Peer("torch", "torch", "worker_torch.py", _TORCH),
}
"""By the name of ``--peers``."""

NOTES = {
    OWN: "as it ships: default score, default search; D = 384, of a WideResNet-50 1,024",
    "patchline-distance": "score distance, the rule of the peers for patches",
    "patchline-patchcore": "score patchcore, the rule of anomalib for images",
    "anomalib-onnxruntime": (
        "anomalib 2.7.0, its ONNX export with a static batch of 1, run by ONNX Runtime by hand; "
        "no post-processor; D = 384, of a WideResNet-50 1,536"
    ),
    "anomalib-openvino": (
        "the same model exported to OpenVINO, run by anomalib's OpenVINOInferencer as it comes: in "
        "bfloat16 where the processor has it, which a cell then says, while all others compute in "
        "float32; D as above"
    ),
    "anomalib-openvino-float32": "the same, told to compute in float32 as the others do",
    "patchcore-inspection": (
        "the published method, measured again, not the package: exact FAISS index, approximate "
        "greedy coreset; frames not cropped; D = 384 (the repository would widen it to 1,024, "
        "which is slower), of a WideResNet-50 1,024"
    ),
    "torch": "plain PyTorch: cdist, topk, textbook coreset; D = 384, of a WideResNet-50 1,536",
}
"""What a reader must know of each, by its name in the tables."""


def chosen(names: list[str]) -> list[Peer]:
    """Patchline and the named peers, in the order of the catalogue.

    Raises:
        ConfigurationError: there is no such peer.
    """
    if unknown := [name for name in names if name not in OTHERS]:
        raise ConfigurationError(
            f"there is no peer {', '.join(unknown)}, expected some of: {', '.join(OTHERS)}"
        )
    return [*PATCHLINE, *(peer for name, peer in OTHERS.items() if name in names)]


def makers(peers: list[Peer]) -> list[Maker]:
    """Whoever makes models for these peers, each once."""
    return list(dict.fromkeys(peer.maker for peer in peers))
