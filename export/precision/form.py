"""One fitted model in one precision, and both kinds of graph that it is exported as."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx

from patchline.calibration.ranges import Ranges
from patchline.export.detector import Detector
from patchline.export.external_bank import ExternalDetector, graph_inputs
from patchline.export.onnx_graph import to_onnx
from patchline.export.precision.int8 import quantize_backbone
from patchline.export.pruned import with_pruned_search
from patchline.runtime.contract import BankPrecision, Precision, PrunedSearch, Quantization


@dataclass(frozen=True)
class Form:
    """A model in one precision.

    Attributes:
        detector: the module that is traced: in float32, or in half precision.
        precision: of the backbone.
        bank: precision of the memory bank.
        ranges: of the activations, where the backbone is INT8.
        float_layers: layers that are not quantised then, by name.
        classes: whose good pictures the ranges were found on.
        search: how a graph with its own bank searches it; ``None`` for exactly.
    """

    detector: Detector
    precision: Precision = "fp32"
    bank: BankPrecision = "fp32"
    ranges: Ranges | None = None
    float_layers: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    search: PrunedSearch | None = None

    @cached_property
    def shipped(self) -> Detector:
        """The module of the graph with its own bank: searched as ``search`` says."""
        if self.search is None:
            return self.detector
        return with_pruned_search(self.detector, self.search)

    @property
    def quantization(self) -> Quantization | None:
        """How the ranges were found; ``None`` unless the backbone is INT8."""
        if self.ranges is None:
            return None
        return Quantization(
            method=self.ranges.method,
            images=self.ranges.images,
            sha256=self.ranges.sha256,
            float_layers=self.float_layers,
            classes=self.classes,
            percentile=self.ranges.percentile,
        )

    def embedded(self) -> onnx.ModelProto:
        """The graph with its own bank.

        Raises:
            ModelError: it cannot be exported or quantised.
        """
        return self._quantized(to_onnx(self.shipped, self.detector.embedder.size))

    def external(self) -> onnx.ModelProto:
        """The graph that takes a bank.

        Raises:
            ModelError: it cannot be exported or quantised.
        """
        inputs = graph_inputs(self.detector.head)
        module = ExternalDetector(self.detector)
        return self._quantized(to_onnx(module, self.detector.embedder.size, inputs))

    def _quantized(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        if self.ranges is None:
            return graph
        return quantize_backbone(graph, self.ranges, self.float_layers)
