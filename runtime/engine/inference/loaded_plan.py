"""A plan on the GPU: all that is made once when it is opened, and its bank, which may change."""

from __future__ import annotations

import contextlib
import traceback

from patchline.runtime.bank import Bank
from patchline.runtime.contract import Manifest
from patchline.runtime.engine.compat import Flavour
from patchline.runtime.engine.cuda.gpu import Gpu
from patchline.runtime.engine.cuda.graph import GraphMaker
from patchline.runtime.engine.cuda.resources import Resources
from patchline.runtime.engine.inference.compute import Compute
from patchline.runtime.engine.inference.device_bank import DeviceBank
from patchline.runtime.engine.inference.phase_marks import PhaseMarks
from patchline.runtime.engine.inference.plan_io import PlanIO, read_io
from patchline.runtime.engine.inference.runs import Runs
from patchline.runtime.engine.inference.slots import Slot, make_streams
from patchline.runtime.engine.plans.plan_file import PlanFile

SLOTS = 2


class LoadedPlan:
    """Engine, streams, slots and contexts of a plan.

    Args:
        file: the checked plan.
        flavour: the TensorRT that built it.
        gpu: where it runs; closed with this, also if this cannot be made.
        bank: of the first product; for a plan without its own.
        cuda_graph: whether runs may become CUDA graphs.

    Attributes:
        io: what the plan takes.
        slots: one for each batch in flight.
        streams: what they go through.
        graphs: whether runs become CUDA graphs.
        runs: the contexts, with the bank that holds now.

    Raises:
        ModelError: it is not what its manifest says.
        EngineError: it cannot be opened here, or there is no room for it.
    """

    io: PlanIO
    runs: Runs

    def __init__(
        self,
        file: PlanFile,
        flavour: Flavour,
        gpu: Gpu,
        bank: Bank | None,
        cuda_graph: bool,
    ) -> None:
        self.file, self._gpu, self._flavour = file, gpu, flavour
        self._bank: DeviceBank | None = None
        self._marks: PhaseMarks | None = None
        self.graphs = GraphMaker(cuda_graph)
        self._resources = Resources(gpu)
        try:
            with gpu.current():
                self._open(bank)
        except BaseException as error:
            # The frames on the way here hold TensorRT's objects, which must go before the context.
            traceback.clear_frames(error.__traceback__)
            self.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """Of the product whose bank is on the GPU, or of a plan with its own bank."""
        manifest = self._bank.manifest if self._bank else self.file.manifest
        assert isinstance(manifest, Manifest)  # a graph's plan is not read without a bank
        return manifest

    def marks(self) -> PhaseMarks:
        """Marks that time the phases of a call, made when they are first asked for."""
        if self._marks is None:
            self._marks = PhaseMarks(self._gpu, self._resources)
        return self._marks

    def switch_bank(self, bank: Bank) -> None:
        """Run with another product's bank from the next batch on; what is in flight keeps the old.

        Everything that can fail is done before the switch.

        Raises:
            ModelError: a tensor that the plan takes is missing.
            EngineError: it has rows that the plan was not built for, or there is no room for it.
        """
        with contextlib.ExitStack() as undo:
            uploaded = self._upload(bank)
            undo.callback(uploaded.release)
            runs = self.runs.with_bank(uploaded)
            undo.callback(runs.release)
            self.streams.compute.synchronize()
            undo.pop_all()
        old_runs, old_bank = self.runs, self._bank
        self.runs, self._bank = runs, uploaded
        old_runs.release()
        if old_bank is not None:
            old_bank.release()

    def close(self) -> None:
        """Wait for what is in flight, release everything in order, close the GPU. Never raises."""
        self._resources.close()

    def _open(self, bank: Bank | None) -> None:
        resources, manifest = self._resources, self.file.manifest
        self.streams = make_streams(self._gpu, resources)
        compute = self._make_compute()
        self.io = read_io(self._flavour.trt, compute.engine, manifest, self.file.path)
        most = self.io.batch[1]
        self.slots = [Slot(self._gpu, manifest, most, resources) for _ in range(SLOTS)]
        compute.allocate(self._gpu, resources)
        resources.memory.call(self._release_bank)
        if bank is not None:
            self._bank = self._upload(bank)
        self.runs = Runs(compute, self.slots, self._bank)
        resources.tensorrt.call(lambda: self.runs.release())
        for slot in range(SLOTS):  # shapes and addresses that are refused show here, not in a frame
            self.runs.get(self.io.batch[0], slot)

    def _make_compute(self) -> Compute:
        compute = Compute(self.file, self._flavour, self.streams.compute, self.graphs)
        self._resources.tensorrt.add(compute)
        compute.open()
        return compute

    def _upload(self, bank: Bank) -> DeviceBank:
        self.io.check_bank(bank, self.file.path)
        return DeviceBank(bank, self.io.bank, self._gpu, self.streams.upload)

    def _release_bank(self) -> None:
        if self._bank is not None:
            self._bank.release()
