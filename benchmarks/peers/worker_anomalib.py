"""anomalib's Patchcore through its own API; judged by ONNX Runtime or its OpenVINO inferencer.

A worker of :mod:`patchline.benchmarks.peers`; its variants are ``onnxruntime`` (the exported file
by hand, without anomalib), ``openvino`` (anomalib's inferencer, which computes in bfloat16 where
the processor has it), ``openvino-float32`` (the same told not to) and ``fit``. Coreset, scoring and
export are anomalib's as they are, with two exceptions that favour it or change no rank: no
post-processor (its normalisation would need labelled pictures), and a batch of one, not two.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")

VARIANT: str = globals()["VARIANT"]
if VARIANT == "onnxruntime":
    import cv2  # noqa: F401  frames come from somewhere, as in Patchline's worker
    import onnxruntime
elif VARIANT.startswith("openvino"):
    from anomalib.deploy import OpenVINOInferencer  # type: ignore[import-not-found]
else:
    import torch
    from anomalib.data import Folder  # type: ignore[import-not-found]
    from anomalib.engine import Engine  # type: ignore[import-not-found]
    from anomalib.models import Patchcore  # type: ignore[import-not-found]
    from anomalib.models.components import KCenterGreedy  # type: ignore[import-not-found]

PACKAGES = ["anomalib", "torch", "onnxruntime", "openvino", "numpy"]
COMMANDS = ["load", "make", "fit", "coreset"]

ONNX, OPENVINO = "weights/onnx/model.onnx", "weights/openvino/model.xml"

_model: dict[str, Any] = {}


def load(folder: str, threads: int) -> dict[str, Any]:
    """Open the exported file."""
    if VARIANT.startswith("openvino"):
        config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
        if VARIANT == "openvino-float32":
            config["INFERENCE_PRECISION_HINT"] = "f32"
        _model["openvino"] = OpenVINOInferencer(
            Path(folder) / OPENVINO, device="CPU", config=config
        )
        size = _model["openvino"].input_blob.shape
        kind = _model["openvino"].model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        precision = {"f32": "float32", "bf16": "bfloat16"}.get(kind, kind)
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path, providers = str(Path(folder) / ONNX), ["CPUExecutionProvider"]
        _model["onnxruntime"] = onnxruntime.InferenceSession(path, options, providers=providers)
        size = _model["onnxruntime"].get_inputs()[0].shape
        precision = "float32"
    _model["image_px"] = int(size[-1])
    return {"precision": precision}


def read(path: str) -> Any:
    """A picture file as a frame at model size, by the transform that the fit used."""
    import torch
    from anomalib.data.utils import read_image  # type: ignore[import-not-found]
    from torchvision.transforms.v2.functional import resize  # type: ignore[import-untyped]

    side = _model["image_px"]
    pixels = resize(read_image(path, as_tensor=True), [side, side], antialias=True)
    frame = (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(frame[..., ::-1])


def judge(frame: Any) -> tuple[float, Any]:
    """Image score and map of uint8 ``[H, W, 3]`` BGR."""
    if VARIANT.startswith("openvino"):
        found = _model["openvino"].predict(frame[..., ::-1])
        return float(found.pred_score[0]), found.anomaly_map.squeeze()
    pixels = np.ascontiguousarray(frame[..., ::-1].transpose(2, 0, 1)[None], np.float32)
    pixels /= 255
    score, anomaly_map = _model["onnxruntime"].run(["pred_score", "anomaly_map"], {"input": pixels})
    return float(score[0]), anomaly_map[0, 0]


def make(folder: str, backbone: str, state: str, bank: str, image_px: int) -> dict[str, Any]:
    """Export a model whose memory bank is given as an ``.npy`` file."""
    model = _patchcore(backbone, state, image_px, 0.01)
    model.model.memory_bank = torch.from_numpy(np.load(bank))
    _export(model, Path(folder), image_px)
    return {}


def fit(
    folder: str,
    pictures: list[str],
    backbone: str,
    state: str,
    image_px: int,
    ratio: float,
    threads: int,
) -> dict[str, Any]:
    """Fit by anomalib's engine on the folder of the good pictures, and export both formats."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    started = time.perf_counter()
    model = _patchcore(backbone, state, image_px, ratio)
    data = Folder(
        name="good", normal_dir=str(Path(pictures[0]).parent), train_batch_size=8,
        eval_batch_size=8, num_workers=0, test_split_mode="none", val_split_mode="none",
    )  # fmt: skip
    # Its engine also saves a checkpoint: that cannot be left out.
    engine = Engine(
        accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        limit_val_batches=0,
    )  # fmt: skip
    engine.fit(model=model, datamodule=data)
    fitted = time.perf_counter()
    _export(model, Path(folder), image_px)
    return {
        "export_s": time.perf_counter() - fitted,
        "fit_s": time.perf_counter() - started,
        "bank_rows": len(model.model.memory_bank),
    }


def coreset(rows: str, picks: int, threads: int) -> dict[str, Any]:
    """Time its k-center greedy for so many rows of an ``.npy`` file, its reading left out."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    values = torch.from_numpy(np.load(rows))
    started = time.perf_counter()
    sampler = KCenterGreedy(embedding=values, sampling_ratio=1.0)
    sampler.coreset_size = picks
    picked = sampler.select_coreset_idxs()
    return {"coreset_s": time.perf_counter() - started, "picks": len(picked)}


def _patchcore(backbone: str, state: str, image_px: int, ratio: float) -> Any:
    model = Patchcore(
        backbone=backbone, layers=("layer2", "layer3"), pre_trained=False,
        coreset_sampling_ratio=ratio, num_neighbors=9, post_processor=False, evaluator=False,
        visualizer=False, pre_processor=Patchcore.configure_pre_processor((image_px, image_px)),
    )  # fmt: skip
    network = model.model.feature_extractor.feature_extractor
    given = torch.load(state, weights_only=True)
    network.load_state_dict({name: given[name] for name in network.state_dict()})
    return model


def _export(model: Any, folder: Path, image_px: int) -> None:
    size, static = (image_px, image_px), {"dynamic_axes": None, "dynamic_shapes": None}
    with contextlib.redirect_stdout(sys.stderr):
        model.to_onnx(folder, input_size=size, **static)
        model.to_openvino(folder, input_size=size, onnx_kwargs=static)
