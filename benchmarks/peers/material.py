"""What all peers are given: pictures, weights, banks and frames, made once and kept."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import patchline.export
import patchline.runtime
from patchline.benchmarks.peers.catalogue import OWN, PATCHLINE_MAKER, Maker, Peer
from patchline.benchmarks.peers.conversation import Worker
from patchline.benchmarks.peers.environments import Environments
from patchline.export.datasets import good_pictures, labelled_pictures
from patchline.export.scores import DEFAULT_SCORE
from patchline.runtime.errors import ConfigurationError

FRAMES = 16
SETTLING = 16
"""Pictures that give an untrained backbone the statistics of its batch norms."""

_PATCH_PX = 8
_RANDOM = "random"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What one run of the benchmark is asked for.

    Attributes:
        data: folder of class folders in MVTec layout.
        weights: of the first backbone, a file or ``random``; any other backbone is random.
        work: keeps environments, material and models.
        environments: of the peers.
        say: tells of progress.
        classes: of ``data``; the first one gives rows and frames for speed.
        backbones: of timm; the first one is fitted.
        image_px: side of the frames.
        bank_rows: sizes of the banks for latency and memory.
        threads: of every process.
        rounds: of alternation, where time allows.
        pause_s: between two blocks, so that threads that spin are asleep again.
        block_s: wanted length of a block of frames.
        limit_s: the longest that all rounds of one setting, or one fit, may take.
        fit_limit_s: a fit that takes longer is ended and reported as such.
        ratios: coreset ratios of fit and accuracy.
    """

    data: Path
    weights: str
    work: Path
    environments: Environments
    say: Say
    classes: tuple[str, ...]
    backbones: tuple[str, ...]
    image_px: int
    bank_rows: tuple[int, ...]
    threads: int
    rounds: int
    pause_s: float
    block_s: float
    limit_s: float
    fit_limit_s: float
    ratios: tuple[float, ...]

    def pictures(self, class_name: str) -> list[str]:
        """Good pictures of a class, as absolute paths."""
        return [str(path.resolve()) for path in good_pictures(self.data, class_name).paths]

    def judge(self, peer: Peer) -> Worker:
        """A worker that judges."""
        return self._worker(peer.name, peer.environment, peer.script, peer.variant)

    def maker(self, maker: Maker) -> Worker:
        """A worker that fits and exports."""
        return self._worker(f"{maker.name}-fit", maker.environment, maker.script, "fit")

    def _worker(self, name: str, environment: str, script: str, variant: str) -> Worker:
        scratch = (self.work / "scratch" / name).resolve()
        python = self.environments.python(environment)
        return Worker(name, python, script, scratch, threads=self.threads, variant=variant)


@dataclass(frozen=True)
class Shared:
    """Of one backbone: files that every peer is given.

    Attributes:
        folder: holds them.
        width: D of the backbone's features.
        own_width: D of Patchline and of patchcore-inspection.
    """

    folder: Path
    width: int
    own_width: int

    @property
    def state(self) -> str:
        """State dict of the backbone."""
        return str(self.folder / "state.pth")

    @property
    def frames(self) -> str:
        """uint8 ``[N, H, W, 3]`` BGR at model size."""
        return str(self.folder / "frames.npy")

    def rows(self, maker: Maker) -> Path:
        """Patch embeddings ``[N, D]`` with the D of a maker."""
        is_narrow = maker.name in (OWN, "patchcore-inspection")
        return self.folder / f"rows-{self.own_width if is_narrow else self.width}.npy"

    def bank(self, maker: Maker, rows: int) -> Path:
        """So many of the rows, the same for all makers, without repetition."""
        source = self.rows(maker)
        path = source.with_name(f"bank-{rows}-{source.stem}.npy")
        if not path.exists():
            values = np.load(source, mmap_mode="r")
            if len(values) < rows:
                raise ConfigurationError(
                    f"a bank of {rows} rows is asked for, and the pictures give {len(values)}. "
                    "Ask for fewer --bank-rows"
                )
            picked = np.random.default_rng(0).choice(len(values), rows, replace=False)
            np.save(path, values[np.sort(picked)])
        return path


def shared(plan: Plan, backbone: str) -> Shared:
    """Make what all peers share of a backbone, unless it is there.

    Raises:
        ConfigurationError: the class gives fewer rows than the largest bank has.
        EngineError: it cannot be made.
    """
    is_first = backbone == plan.backbones[0]
    weights = plan.weights if is_first else _RANDOM
    pictures = plan.pictures(plan.classes[0])
    per_image = (plan.image_px // _PATCH_PX) ** 2
    images = len(pictures) if is_first else min(len(pictures), -(-max(plan.bank_rows) // per_image))
    tests = labelled_pictures(plan.data, plan.classes[0])
    asked: dict[str, Any] = {
        "backbone": backbone,
        "weights": weights if weights == _RANDOM else str(Path(weights).resolve()),
        "pictures": pictures,
        "images": images,
        "frames": [str(test.path.resolve()) for test in tests[:: max(1, len(tests) // FRAMES)]],
        "image_px": plan.image_px,
    }
    if weights == _RANDOM:
        asked["settling"] = SETTLING
    folder = (plan.work / "material" / f"{backbone}-{_digest(asked)}").resolve()
    made = folder / "made.json"
    if not made.exists():
        plan.say(f"embedding {images} pictures with {backbone}")
        with plan.maker(PATCHLINE_MAKER) as worker:
            found = worker.ask("material", folder=str(folder), threads=plan.threads, **asked)
        made.write_text(json.dumps(found))
    found = json.loads(made.read_text())
    return Shared(folder, found["width"], found["own_width"])


def model(plan: Plan, peer: Peer, backbone: str, rows: int) -> Path:
    """The folder of a model with so many rows in its bank, made where it is not there yet.

    Raises:
        EngineError: it cannot be made.
    """
    given = shared(plan, backbone)
    name = f"{backbone}-{rows}-{given.folder.name.rpartition('-')[2]}{code_of(peer.maker)}"
    folder = (plan.work / "models" / peer.models / name).resolve()
    if not (folder / "made.json").exists():
        plan.say(f"making {peer.models}'s model of {backbone} with {rows} rows")
        asked: dict[str, Any] = {
            "folder": str(folder),
            "backbone": backbone,
            "state": given.state,
            "bank": str(given.bank(peer.maker, rows)),
            "image_px": plan.image_px,
        }
        if peer.maker is PATCHLINE_MAKER:
            asked["score"] = peer.score or DEFAULT_SCORE
            asked["pictures"] = plan.pictures(plan.classes[0])
        folder.mkdir(parents=True, exist_ok=True)
        with plan.maker(peer.maker) as worker:
            worker.ask("make", **asked)
        (folder / "made.json").write_text("{}")
    return folder


@functools.cache  # one run measures one state of the code
def code_of(maker: Maker) -> str:
    """Part of a folder name that changes with Patchline's code; empty for pinned peers."""
    if maker is not PATCHLINE_MAKER:
        return ""
    digest = hashlib.sha256()
    for package in (patchline.export, patchline.runtime):
        for file in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(file.read_bytes())
    return f"-{digest.hexdigest()[:8]}"


def model_mib(peer: Peer, folder: Path) -> float:
    """Size of the files that the peer runs from."""
    of_peer = {
        "onnxruntime": "weights/onnx/*",
        "openvino": "weights/openvino/*",
        "openvino-float32": "weights/openvino/*",
    }.get(peer.variant, "*.onnx*" if peer.maker is PATCHLINE_MAKER else "*")
    files = (path for path in folder.glob(of_peer) if path.is_file() and path.name != "made.json")
    return sum(path.stat().st_size for path in files) / (1 << 20)


def _digest(asked: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
