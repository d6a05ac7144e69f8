"""What a class takes of a node while it is made: threads, GPU and memory (issue 9).

The fit's own data is planned to the byte (:mod:`patchline.export.memory`). What the process and the
backbone take besides is an estimate above what was measured: the largest resident memory of a
worker with one thread, PyTorch 2.12 on the CPU, batches of 8, random weights, with the libraries'
own files in it (880 MiB before the first picture). Of a conversion to another precision and of a
GPU nothing was measured.

=========================  =======  ========  ========  ========
backbone                   side px  pictures  peak MiB  estimate
=========================  =======  ========  ========  ========
resnet18                   128      8         1200      1603
resnet18                   256      8         1552      2318
resnet18                   256      24        1697      2353
wide_resnet50_2            256      8         2724      3080
resnet18, trained          128      16        1574      2131
resnet18, trained          256      16        1706      3283
wide_resnet50_2, trained   128      16        4531      5837
wide_resnet50_2, trained   256      16        5497      6989
=========================  =======  ========  ========  ========
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from patchline.export.backbone import PatchEmbedder
from patchline.export.config_train import DISTILLATION
from patchline.export.fit import plan_fit
from patchline.export.precision.again import Job
from patchline.export.weights import RANDOM
from patchline.runtime.cluster.connect import Node
from patchline.runtime.contract import ModelSize

PROCESS_BYTES = 5 << 28
"""Of Python with PyTorch, ONNX Runtime and OpenCV."""

COPIES_OF_WEIGHTS = 8
"""The network, its graph several times while it is written, and the engines that verify it."""

ACTIVATION_BYTES_PER_PIXEL = 7 << 8
"""Feature maps that are alive at once, for each picture of a batch."""

TRAINED_COPIES = 44
"""Of the teacher's weights: bottleneck and student are four times as large, each with gradients and
two moments, and all of it is written and verified in the end."""

TRAINED_ACTIVATION_BYTES_PER_PIXEL = 3 << 10
"""All feature maps of a step: a training keeps them for its way back."""

_GIB = 1 << 30


@dataclass(frozen=True)
class Needs:
    """What a class takes of its node.

    Attributes:
        cpus: CPU threads.
        gpus: GPUs, or a share of one.
        memory_bytes: at most.
    """

    cpus: int
    gpus: float
    memory_bytes: int


def needs_of(job: Job, cpus: int, gpus: float) -> Needs:
    """What a class takes.

    Args:
        job: how it comes about.
        cpus: CPU threads that it gets.
        gpus: GPUs, or a share of one.

    Raises:
        ConfigurationError: its memory budget is too small, as its fit would say.
    """
    settings = job.settings
    embedder = _embedder(settings.backbone, settings.model_size)
    pixels = settings.model_size.height * settings.model_size.width
    weights = sum(value.numel() * value.element_size() for value in embedder.parameters())
    if settings.method == DISTILLATION:
        held = weights * TRAINED_COPIES
        held += settings.train.batch_size * pixels * TRAINED_ACTIVATION_BYTES_PER_PIXEL
    else:
        held = plan_fit(len(job.pictures.paths), embedder, settings, None).peak_bytes
        held += weights * COPIES_OF_WEIGHTS
        held += settings.batch_size * pixels * ACTIVATION_BYTES_PER_PIXEL
    return Needs(cpus, gpus, PROCESS_BYTES + held)


def misfit(needs: Needs, nodes: Sequence[Node]) -> str | None:
    """A sentence where no node could ever hold a class; ``None`` where one can.

    Args:
        needs: of the class.
        nodes: of the cluster that are alive.
    """
    if not nodes:
        return f"no node of the cluster is alive: it needs {_shown(needs)}"
    if any(_fits(needs, node) for node in nodes):
        return None
    best = max(nodes, key=lambda node: (node.gpus >= needs.gpus, node.memory_bytes, node.cpus))
    return (
        f"no node of the cluster can hold it: it needs {_shown(needs)}, and {best.address} has "
        f"{_threads(best.cpus)}, {best.gpus:g} GPUs and {best.memory_bytes / _GIB:.1f} GiB. Lower "
        "--ray-cpus, --ray-gpus or --memory-budget, or add a larger node"
    )


@functools.cache
def _embedder(name: str, size: ModelSize) -> PatchEmbedder:
    """The backbone, with weights that nobody asks for."""
    return PatchEmbedder(name, size, RANDOM)


def _fits(needs: Needs, node: Node) -> bool:
    return (
        node.cpus >= needs.cpus
        and node.gpus >= needs.gpus
        and node.memory_bytes >= needs.memory_bytes
    )


def _shown(needs: Needs) -> str:
    gib = needs.memory_bytes / _GIB
    return f"{_threads(needs.cpus)}, {needs.gpus:g} GPUs and {gib:.1f} GiB of memory"


def _threads(count: float) -> str:
    return f"{count:g} CPU thread{'' if count == 1 else 's'}"
