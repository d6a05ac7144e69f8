"""A model without a memory bank goes to a server as any other does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from patchline.export.serving.deepstream import serve_deepstream
from patchline.export.serving.found_model import find_model
from patchline.export.serving.triton import serve_triton
from patchline.export.serving.verify import run, sample_frames
from patchline.runtime.contract import FRAMES

from ..drawn import CLASS_NAME
from ..serving.stand_in import Repository


def test_triton_and_deepstream_get_what_the_file_computes(published: Path, tmp_path: Path) -> None:
    model = find_model(published.parent, CLASS_NAME)
    frames = sample_frames(model.manifest.model_size)
    expected = run(onnx.load(published), {FRAMES: frames})["image_score"]

    (served,) = serve_triton(model, tmp_path / "triton")
    assert 'string_value: "reverse-distillation"' in (served.folder / "config.pbtxt").read_text()
    found = Repository(tmp_path / "triton").infer(CLASS_NAME, -1, {FRAMES: frames})
    np.testing.assert_array_equal(found["image_score"], expected[:, None])

    serve_deepstream(model, tmp_path / "deepstream")
    (graph,) = (tmp_path / "deepstream").glob("*.onnx")
    planes = frames.transpose(0, 3, 1, 2).astype(np.float32)
    found = run(onnx.load(graph), {FRAMES: planes})
    np.testing.assert_array_equal(found["image_score"], expected[:, None])
