"""What a model takes and is made of: frames, preprocessing, backbone, data, file, parity."""

from __future__ import annotations

from typing import Literal

from patchline.runtime.manifest.section import Count, Digest, Finite, Positive, Section

Precision = Literal["fp32", "fp16", "int8"]
"""Of the backbone. What of the rest is in half precision, the bank's own precision says."""


class ModelSize(Section):
    """Height and width in pixels of the frames that a model takes."""

    height: Positive
    width: Positive


class Preprocessing(Section):
    """How a camera frame becomes model input, and what the graph does to it first."""

    channel_order: Literal["BGR"]
    resize: str
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Finite, Finite, Finite]


class Backbone(Section):
    """The feature extractor; the digest is over its tensors, whatever file they came in."""

    name: str
    layers: tuple[str, ...]
    weights_source: str
    weights_sha256: Digest


class PictureSet(Section):
    """Good pictures that were given at once; the digest is over their contents."""

    images: Positive
    skipped_unreadable: Count
    sha256: Digest


class TrainingSet(Section):
    """The good pictures a model was fitted on.

    Attributes:
        images: all that were read, held out or not.
        skipped_unreadable: left out because they could not be read.
        sha256: over their contents; over the digests of the parts where there are several.
        calibration_images: of ``images``, those that never entered the bank, or the training.
        parts: what the model was fitted on first, and each extension; empty without extension.
    """

    images: Positive
    skipped_unreadable: Count
    sha256: Digest
    calibration_images: Count = 0
    parts: tuple[PictureSet, ...] = ()


class Parity(Section):
    """Largest differences between the exported file and the fitted module, on real frames.

    ``tied_patches`` have neighbours equally far but for rounding; what another choice among these
    changes is not counted as a difference.
    """

    frames: Positive
    image_score_max_relative_error: Finite
    anomaly_map_max_relative_error: Finite
    influence_map_max_error: Finite
    batch_max_relative_error: Finite
    tied_patches: Count = 0


class OnnxFile(Section):
    """The model file that this manifest belongs to. ``None`` in the file's own copy."""

    file: str
    sha256: Digest
