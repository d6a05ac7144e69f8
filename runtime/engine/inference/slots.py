"""Buffers of one batch in flight, made once for the plan's largest batch and used for ever."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchline.runtime import contract
from patchline.runtime.contract import Manifest
from patchline.runtime.engine.base import Prediction
from patchline.runtime.engine.cuda.gpu import Gpu
from patchline.runtime.engine.cuda.objects import DeviceBuffer, Event, PinnedArray, Stream
from patchline.runtime.engine.cuda.resources import Resources
from patchline.runtime.engine.inference.phase_marks import D2H, H2D, NO_MARKS, Marks
from patchline.runtime.engine.inference.plan_io import Shape, output_shapes
from patchline.runtime.graph import GraphManifest
from patchline.runtime.preprocess import Frame


@dataclass(frozen=True)
class Streams:
    """One queue for each direction and one for computing.

    One queue alone could not do both directions and compute at once, however many slots there are:
    work in a queue never overlaps.
    """

    upload: Stream
    compute: Stream
    download: Stream

    def synchronize(self) -> None:
        """Wait for all that was queued."""
        for stream in (self.upload, self.compute, self.download):
            stream.synchronize()


def make_streams(gpu: Gpu, resources: Resources) -> Streams:
    """Three streams that are released with ``resources``, after a wait for what they were given."""
    made = []
    for _ in range(3):
        stream = gpu.stream()
        resources.streams.add(stream)
        made.append(stream)
    streams = Streams(*made)
    resources.waits.call(streams.synchronize)
    return streams


class Slot:
    """What one batch needs on its way: frames and outputs on both sides, and three marks.

    Args:
        gpu: where; it is current.
        manifest: gives the sizes.
        most: frames of the plan's largest batch.
        resources: releases it.

    Attributes:
        frame_shape: height, width and channels of a frame.
        addresses: where the plan reads and writes, by tensor.
    """

    def __init__(
        self, gpu: Gpu, manifest: Manifest | GraphManifest, most: int, resources: Resources
    ) -> None:
        size = manifest.model_size
        self._gpu, self._resources, self._manifest = gpu, resources, manifest
        self.frame_shape: Shape = (size.height, size.width, 3)
        self._host: dict[str, PinnedArray] = {}
        self._device: dict[str, DeviceBuffer] = {}
        self._allocate(contract.FRAMES, (most, *self.frame_shape), np.uint8)
        for name, shape in output_shapes(manifest, most).items():
            self._allocate(name, shape, np.float32)
        self.addresses = {name: buffer.address for name, buffer in self._device.items()}
        self._uploaded, self._computed, self._downloaded = (self._event() for _ in range(3))

    def output_shapes(self, batch: int) -> dict[str, Shape]:
        """Shapes of the outputs of a batch."""
        return output_shapes(self._manifest, batch)

    def upload(self, frames: Frame, run: int, streams: Streams, marks: Marks = NO_MARKS) -> None:
        """Queue ``frames``, filled up with black ones to ``run``; computing waits for them.

        The slot must be free: its last batch was waited for.
        """
        host = self._host[contract.FRAMES].array
        host[: len(frames)] = frames
        host[len(frames) : run] = 0
        marks.begin(H2D, streams.upload)
        streams.upload.upload(host[:run], self._device[contract.FRAMES])
        marks.end(H2D, streams.upload)
        self._uploaded.record(streams.upload)
        self._uploaded.make_wait(streams.compute)

    def download(self, count: int, streams: Streams, marks: Marks = NO_MARKS) -> None:
        """Queue the outputs of ``count`` frames, once they are computed; the scores first."""
        self._computed.record(streams.compute)
        self._computed.make_wait(streams.download)
        marks.begin(D2H, streams.download)
        for name in contract.OUTPUTS:
            streams.download.download(self._device[name], self._host[name].array[:count])
        marks.end(D2H, streams.download)
        self._downloaded.record(streams.download)

    def take(self, count: int) -> Prediction:
        """Wait for the outputs and copy them out, so that the next batch does not change them."""
        self._downloaded.synchronize()
        return Prediction(*(self._host[name].array[:count].copy() for name in contract.OUTPUTS))

    def _event(self) -> Event:
        event = self._gpu.event()
        self._resources.events.add(event)
        return event

    def _allocate(self, name: str, shape: Shape, dtype: type[np.generic]) -> None:
        pinned = self._gpu.pinned(shape, dtype)
        self._resources.memory.add(pinned)
        buffer = self._gpu.allocate(pinned.array.nbytes, f"{name} of {shape[0]} frames")
        self._resources.memory.add(buffer)
        self._host[name], self._device[name] = pinned, buffer
