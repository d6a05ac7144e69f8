"""What a distilled model was trained with (reverse distillation; Deng & Li, CVPR 2022)."""

from __future__ import annotations

from patchline.runtime.manifest.section import Count, Digest, Finite, Positive, Section


class FeatureNoise(Section):
    """The noise that disturbed the teacher's features in training (DESIGN section 3).

    Attributes:
        smallest: sigma, in standard deviations of a feature's channel.
        largest: likewise.
        warmup_epochs: epochs over which the noise grew to that.
        bank_rows: rows of the memory banks behind it, of each scale from fine to coarse. They are
            no part of the model.
    """

    smallest: Finite
    largest: Finite
    warmup_epochs: Count
    bank_rows: tuple[Positive, ...]


class Distillation(Section):
    """The training of a model without a memory bank.

    Attributes:
        epochs: trained.
        batch_size: pictures of a step.
        lr: largest learning rate.
        seed: of the draws.
        width_per_group: of the student's and the bottleneck's blocks.
        loss: mean of the last epoch, summed over the scales.
        grids: height and width of the maps that are compared, from fine to coarse.
        noise: ``None`` where the features were not disturbed.
        weights_sha256: over the tensors of bottleneck and student.
    """

    epochs: Positive
    batch_size: Positive
    lr: Finite
    seed: int
    width_per_group: Positive
    loss: Finite
    grids: tuple[tuple[Positive, Positive], ...]
    noise: FeatureNoise | None
    weights_sha256: Digest
