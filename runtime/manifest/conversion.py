"""What a conversion to FP16 or INT8 did, and what the gate found."""

from __future__ import annotations

from typing import Literal

from patchline.runtime.manifest.section import Count, Digest, Finite, Positive, Rate, Section


class Quantization(Section):
    """How the ranges of an INT8 backbone were found.

    Attributes:
        method: ``minmax``, ``entropy`` or ``percentile``.
        images: good pictures that were looked at.
        sha256: over their contents.
        float_layers: names of the layers that were not quantised.
        classes: whose pictures they were: several where these share one graph, and perhaps not
            this one; empty where the model was written before that was noted.
        percentile: share of the values that was not clipped, in %; ``None`` where the method is
            another, or the model was written before that was noted.
    """

    method: Literal["minmax", "entropy", "percentile"]
    images: Positive
    sha256: Digest
    float_layers: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    percentile: Finite | None = None


class GateLimits(Section):
    """What a converted model was allowed to differ by; see docs/precision.md."""

    rank_correlation: Finite
    map_error: Finite
    verdict_changes: Finite
    image_auroc: Finite
    pixel_auroc: Finite


class Gate(Section):
    """A converted model beside the float32 one, picture by picture; see docs/precision.md.

    Attributes:
        images: good pictures compared; none was judged by its own rows of the bank.
        rank_correlation: Spearman's, of the image scores of good and labelled pictures.
        map_error: 95 % of the anomaly maps' values differ by less, in parts of the map threshold.
        verdict_changes: share of all pictures whose verdict at the own threshold differs.
        labelled_images: labelled pictures compared, 0 where there were none.
        image_auroc_change: converted less float32; ``None`` without labelled pictures.
        pixel_auroc_change: likewise.
        problems: the limits that were passed, as sentences; empty where it was let out.
        is_forced: whether it was written in spite of problems.
        limits: what was accepted; ``None`` where the model was written before that was noted.
        left_out: pictures that were not compared, because without their own rows the bank has
            fewer rows than neighbours.
        time_ratio: time of an inference in parts of the float32 model's, where it was converted
            (ONNX Runtime, CPU); ``None`` as for ``limits``.
    """

    images: Positive
    rank_correlation: Finite
    map_error: Finite
    verdict_changes: Rate
    labelled_images: Count = 0
    image_auroc_change: Finite | None = None
    pixel_auroc_change: Finite | None = None
    problems: tuple[str, ...] = ()
    is_forced: bool = False
    limits: GateLimits | None = None
    left_out: Count = 0
    time_ratio: Finite | None = None


class Conversion(Section):
    """What was done to the float32 model; ``None`` in the manifest of one that was not converted.

    ``quantization`` is ``None`` unless the precision is ``int8``. ``half_bank_problems`` says, with
    figures, why the bank of an ``fp16`` model stayed in float32; it is empty where it did not.
    """

    quantization: Quantization | None
    gate: Gate
    half_bank_problems: tuple[str, ...] = ()
