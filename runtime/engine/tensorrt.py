"""TensorRT plans behind the engine protocol, over pycuda (DESIGN section 5).

Two batches may be in flight: while one is computed, the next is uploaded and the one before is
downloaded. That takes a stream for each of the three, since work in one stream never overlaps;
events keep them in order.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchline.runtime.bank import Bank, as_bank, check_fits, check_given
from patchline.runtime.contract import Manifest
from patchline.runtime.engine.base import EngineFacts, PhaseTimes, Prediction, Wait
from patchline.runtime.engine.compat import TENSORRT_RTX, Flavour
from patchline.runtime.engine.cuda.gpu import Gpu
from patchline.runtime.engine.inference.loaded_plan import SLOTS, LoadedPlan
from patchline.runtime.engine.inference.pending import Part, Pending
from patchline.runtime.engine.inference.phase_marks import NO_MARKS, Marks
from patchline.runtime.engine.plans.plan_file import PlanFile, read_plan
from patchline.runtime.errors import EngineError, FrameError
from patchline.runtime.graph import GraphManifest
from patchline.runtime.preprocess import Frame, check_frames


class TensorRTEngine:
    """An :class:`~patchline.runtime.engine.base.Engine` over a plan.

    Everything but the attributes belongs to the thread that opened it, as CUDA's contexts do.

    Args:
        plan: ``bottle.trt``, its record and its manifest beside it.
        flavour: the TensorRT that built it.
        gpu: where it was built; the engine closes it, also if it cannot be opened.
        bank: a product's ``.bank`` file or what was read from one, for a plan without its own.
        cuda_graph: replay runs as CUDA graphs where ``cuda.bindings`` is installed.

    Raises:
        ConfigurationError: a bank is missing or unwanted.
        ModelError: a file is missing, damaged, altered or of another model.
        EngineError: TensorRT does not open the plan, or the GPU has no room for it.
    """

    def __init__(
        self,
        plan: Path,
        *,
        flavour: Flavour,
        gpu: Gpu,
        bank: Path | Bank | None = None,
        cuda_graph: bool = True,
    ) -> None:
        self._thread = threading.current_thread()
        self._gpu, self._flavour = gpu, flavour
        self._in_flight: list[Part | None] = [None] * SLOTS
        self._turn = 0
        self._is_open = True
        try:
            file = read_plan(plan, bank)
            given = None if bank is None else _read_bank(bank, file)
            self._plan = LoadedPlan(file, flavour, gpu, given, cuda_graph)
        except BaseException:
            gpu.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model that runs; with an external bank, that of the bank."""
        return self._plan.manifest

    @property
    def description(self) -> str:
        """``TensorRT 10.3.0, Orin (8.7), fp32, batch 1 to 8, CUDA graphs``."""
        device, (least, most) = self._gpu.device, self._plan.io.batch
        graphs = ", CUDA graphs" if self._plan.graphs.is_on else ""
        return (
            f"{self._flavour}, {device.gpu} ({device.compute_capability}), "
            f"{self.manifest.precision}, batch {least} to {most}{graphs}"
        )

    @property
    def facts(self) -> EngineFacts:
        """How it runs; CUDA graphs may turn out not to work at the first call of a batch."""
        device, (least, most) = self._gpu.device, self._plan.io.batch
        is_rtx = self._flavour.name == TENSORRT_RTX
        return EngineFacts(
            runtime="TensorRT for RTX" if is_rtx else "TensorRT",
            version=self._flavour.version,
            provider="TensorRT",
            gpu=f"{device.gpu} ({device.compute_capability})",
            threads=None,
            cuda_graph=self._plan.graphs.is_on,
            wait=Wait.CUDA,
            least_batch=least,
            most_batch=most,
            in_flight=SLOTS,
        )

    def infer(self, frames: Frame) -> Prediction:
        """Judge uint8 ``[B, H, W, 3]`` frames; see :meth:`Engine.infer`."""
        return self.submit(frames).result()

    def time_phases(self, frames: Frame) -> PhaseTimes:
        """Judge frames with nothing else in flight, and say how long each part of it took.

        The marks that this takes cost a call some microseconds, so :meth:`infer` has none.

        Args:
            frames: as for :meth:`infer`, at most as many as the plan takes at once.

        Raises:
            FrameError: the frames do not fit the model, or are more than that.
            EngineError: as for :meth:`submit`.
        """
        with self._usable():
            check_frames(frames, self._plan.file.manifest.model_size)
            most = self._plan.io.batch[1]
            if len(frames) > most:
                raise FrameError(f"{len(frames)} frames, and the plan takes {most} at once")
            for part in self._in_flight:
                if part is not None:
                    self._collect(part)
            marks = self._plan.marks()
            self._collect(self._start(frames, marks))
            return marks.times()

    def submit(self, frames: Frame) -> Pending:
        """Begin to judge frames, and return before it is done.

        Two batches can be in flight. A third waits for the oldest, whose result is kept until it
        is asked for. More frames than the plan takes at once are so many batches one by one.

        Args:
            frames: as for :meth:`infer`; they may be changed as soon as this returns.

        Raises:
            FrameError: the frames do not fit the model.
            EngineError: the engine failed, is closed, or belongs to another thread.
        """
        with self._usable():
            check_frames(frames, self._plan.file.manifest.model_size)
            most = self._plan.io.batch[1]
            chunks = [frames[at : at + most] for at in range(0, len(frames), most)]
            return Pending([self._start(chunk) for chunk in chunks], self._take)

    def load_bank(self, bank: Path | Bank) -> None:
        """Judge by another product's bank from the next frame on; see :meth:`Engine.load_bank`.

        Frames in flight are judged by the old one.
        """
        with self._usable():
            check_given(self._plan.file.manifest, bank, self._plan.file.path)
            self._plan.switch_bank(_read_bank(bank, self._plan.file))

    def close(self) -> None:
        """Wait for what is in flight and release everything. A second call does nothing.

        Raises:
            EngineError: it is called from another thread.
        """
        if self._is_open:
            self._check_thread()
            self._is_open = False
            self._plan.close()

    def __enter__(self) -> TensorRTEngine:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def _start(self, frames: Frame, marks: Marks = NO_MARKS) -> Part:
        at, self._turn = self._turn, (self._turn + 1) % SLOTS
        oldest = self._in_flight[at]
        if oldest is not None:
            self._collect(oldest)
        part = Part(at, len(frames))
        slot, streams = self._plan.slots[at], self._plan.streams
        batch = max(len(frames), self._plan.io.batch[0])
        # After an error the slot counts as free: what was queued for it comes before what is queued
        # next in each of the streams, and nobody asks for its result.
        run = self._plan.runs.get(batch, at)
        slot.upload(frames, batch, streams, marks)
        marks.compute(run.start, streams.compute)
        slot.download(len(frames), streams, marks)
        run.capture()
        self._in_flight[at] = part
        return part

    def _take(self, part: Part) -> Prediction:
        if part.prediction is None:
            with self._usable():
                self._collect(part)
        assert part.prediction is not None
        return part.prediction

    def _collect(self, part: Part) -> None:
        part.prediction = self._plan.slots[part.slot].take(part.count)
        self._in_flight[part.slot] = None

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        if not self._is_open:
            raise EngineError("the engine is closed")
        self._check_thread()
        with self._gpu.current():
            yield

    def _check_thread(self) -> None:
        here = threading.current_thread()
        if here is not self._thread:
            raise EngineError(
                f"the engine was opened in thread {self._thread.name!r} and is used in "
                f"{here.name!r}, but a CUDA context belongs to one thread. Open one there"
            )


def _read_bank(given: Path | Bank, file: PlanFile) -> Bank:
    bank = as_bank(given)
    if isinstance(file.manifest, GraphManifest):
        check_fits(bank, file.manifest, file.path)
    return bank
