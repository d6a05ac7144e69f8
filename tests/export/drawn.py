"""Small drawn data sets, and the settings that fit them in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image

from patchline.export.config import FitSettings
from patchline.export.datasets import good_pictures
from patchline.export.fit import FittedModel, fit
from patchline.runtime.camera.test_pattern import draw_part
from patchline.runtime.errors import ImageReadError
from patchline.runtime.image_file import read_image
from patchline.runtime.progress import SilentSteps

CLASS_NAME = "gasket"
SIZE_PX = 64

QUICK = FitSettings(
    backbone="resnet18",
    weights="random",
    image_size=(SIZE_PX, SIZE_PX),
    coreset_ratio=0.4,  # so that the bank has more than nine groups of 32, the last one padded
    device="cpu",
)


def settings_with(**changes: Any) -> FitSettings:
    """The quick settings with some of them changed (and checked)."""
    return FitSettings(**(QUICK.model_dump() | changes))


def write_picture(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def write_good(folder: Path, count: int, *, first_seed: int = 100, side_px: int = 96) -> list[Path]:
    """Draw good parts: ``000.png``, ``001.png``, …"""
    return [
        write_picture(folder / f"{i:03}.png", draw_part(first_seed + i, size=(side_px, side_px))[0])
        for i in range(count)
    ]


def write_class(root: Path, name: str = CLASS_NAME, good: int = 12) -> Path:
    """Draw a class in MVTec layout with a test set of two good and two defective parts."""
    folder = root / name
    write_good(folder / "train" / "good", good)
    write_good(folder / "test" / "good", 2, first_seed=500)
    for seed, defect in enumerate(("chip", "contamination"), start=600):
        image, mask = draw_part(seed, defect=defect, size=(96, 96))
        write_picture(folder / "test" / defect / "000.png", image)
        write_picture(folder / "ground_truth" / defect / "000_mask.png", mask)
    return folder


def write_modes(folder: Path) -> dict[str, Path]:
    """One gray picture in every mode a camera or an archive has."""
    gray = cv2.cvtColor(read_image(write_good(folder, 1)[0]), cv2.COLOR_BGR2GRAY)
    bgr = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    clear = np.dstack([bgr, np.full(gray.shape, 17, np.uint8)])
    paths = {
        "colour": write_picture(folder / "colour.png", bgr),
        "gray": write_picture(folder / "gray.png", gray),
        "rgba": write_picture(folder / "rgba.png", clear),
        "16 bit gray": write_picture(folder / "gray16.png", gray.astype(np.uint16) * 257),
        "16 bit": write_picture(folder / "colour16.tif", bgr.astype(np.uint16) * 257),
        "bmp": write_picture(folder / "colour.bmp", bgr),
        "palette": folder / "palette.png",
    }
    palette = PIL.Image.fromarray(gray).convert("P")
    palette.putpalette([value for value in range(256) for _ in range(3)])
    palette.save(paths["palette"])
    with PIL.Image.open(paths["palette"]) as written:
        assert written.mode == "P"
    return paths


def refuse(error: ImageReadError) -> None:
    raise AssertionError(f"skipped without being allowed to: {error}")


def quick_fit(data: Path, **changes: Any) -> FittedModel:
    """Fit the drawn class below ``data``."""
    return fit(good_pictures(data, CLASS_NAME), settings_with(**changes), SilentSteps(), refuse)
