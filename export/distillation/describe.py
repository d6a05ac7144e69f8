"""What is written about a distilled model: its manifest, and its state."""

from __future__ import annotations

from patchline.export.config import FitSettings
from patchline.export.describe import current_versions, describe_network
from patchline.export.distillation.fit import DistilledModel
from patchline.export.distillation.state import DistilledState, trained_tensors
from patchline.export.weights import digest_of_tensors
from patchline.runtime.contract import Distillation, FeatureNoise, Manifest, Parity


def describe_distilled(
    fitted: DistilledModel, settings: FitSettings, parity: Parity | None
) -> Manifest:
    """The manifest of a distilled model, before it has a file."""
    preprocessing, backbone = describe_network(fitted.detector.model)
    return Manifest(
        class_name=fitted.pictures.class_name,
        method=settings.method,
        score=settings.score_name,
        precision="fp32",
        model_size=settings.model_size,
        preprocessing=preprocessing,
        backbone=backbone,
        memory_bank=None,
        distance_statistics=None,
        threshold=fitted.threshold,
        normal_scores=fitted.normal,
        training_set=fitted.training_set,
        parity=parity,
        onnx=None,
        versions=current_versions(),
        distillation=_training(fitted, settings),
    )


def state_of_distilled(fitted: DistilledModel, manifest: Manifest) -> DistilledState:
    """The state of a distilled model; ``manifest`` is that of the float32 model."""
    tensors = trained_tensors(fitted.detector.model)
    return DistilledState(tensors, manifest, fitted.picture_digests)


def _training(fitted: DistilledModel, settings: FitSettings) -> Distillation:
    model, result = fitted.detector.model, fitted.result
    return Distillation(
        epochs=result.epochs,
        batch_size=settings.train.batch_size,
        lr=settings.train.learning_rate,
        seed=settings.seed,
        width_per_group=model.width_per_group,
        loss=result.loss,
        grids=model.grids,
        noise=_noise(fitted),
        weights_sha256=digest_of_tensors(trained_tensors(model)),
    )


def _noise(fitted: DistilledModel) -> FeatureNoise | None:
    noise = fitted.result.noise
    if noise is None:
        return None
    return FeatureNoise(
        smallest=noise.smallest,
        largest=noise.largest,
        warmup_epochs=noise.warmup_epochs,
        bank_rows=noise.bank_rows,
    )
