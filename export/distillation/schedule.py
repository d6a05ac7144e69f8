"""What changes from step to step of a training: learning rate, noise, order of the pictures.

Everything drawn is drawn from the seed, the epoch and the step alone, so that a training that is
resumed needs no state of a generator to go on as it would have.
"""

from __future__ import annotations

import hashlib

import torch

from patchline.export.config_train import TrainSettings

_SEED_BYTES = 8


def learning_rate(step: int, steps_per_epoch: int, settings: TrainSettings) -> float:
    """The learning rate of a step, counted from 0 over all epochs.

    It rises by equal parts from step to step over the warm-up, whose last step has the whole rate,
    and is multiplied by ``decay_factor`` once ``decay_at`` of the epochs are over (their number is
    rounded up). Where these overlap, both apply.
    """
    warmup = settings.warmup_epochs * steps_per_epoch
    rate = settings.learning_rate * (min(1.0, (step + 1) / warmup) if warmup else 1.0)
    has_decayed = step // steps_per_epoch >= settings.decay_epoch
    return rate * settings.decay_factor if has_decayed else rate


def noise_strength(epoch: int, settings: TrainSettings) -> float:
    """Share of the noise in an epoch, counted from 0: rises by equal parts up to 1."""
    if not settings.noise_warmup_epochs:
        return 1.0
    return min(1.0, (epoch + 1) / settings.noise_warmup_epochs)


def batches_of_epoch(pictures: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The pictures of an epoch by number, shuffled, batch by batch.

    The last batch may be smaller. One of a single picture is left out, because batch norm learns
    nothing good from it; the shuffling lets another picture sit out each time.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    order: list[int] = torch.randperm(pictures, generator=generator).tolist()
    batches = [order[start : start + batch_size] for start in range(0, pictures, batch_size)]
    return batches[:-1] if len(batches[-1]) == 1 else batches


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A seed of its own for each purpose, epoch and step, 0 to 2^63 - 1."""
    text = " ".join(map(str, (seed, purpose, *numbers)))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:_SEED_BYTES], "big") >> 1
