"""Generated pictures of a machined gasket: what ``test://`` shows and the demo is fitted on.

No camera and no data set is needed to see the whole line at work. The pictures are drawn, so
figures measured on them say that the parts fit together, and nothing about a real line.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from patchline.runtime.camera.defects import DAMAGES
from patchline.runtime.camera.drawing import compose, part_layers
from patchline.runtime.camera.scene import expose, make_grid, random_scene
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.preprocess import Frame

DEFECTS: tuple[str, ...] = ("chip", "scratch", "contamination", "missing")
"""The names of the defects that :func:`draw_part` knows."""

SMALLEST_PX, LARGEST_PX = 64, 4096
"""Limits of a drawn picture's height and width."""

_SCENE, _NOISE, _DEFECT = range(3)


def draw_part(
    seed: int, *, defect: str | None = None, size: tuple[int, int] = (480, 480)
) -> tuple[Frame, npt.NDArray[np.uint8]]:
    """Draw one part as an industrial camera would see it from above.

    The same arguments give the same bytes on each call. A defective part is the good part of
    the same seed with a defect: outside the mask the two pictures are identical.

    Args:
        seed: picks position, rotation, light, texture, noise and the defect's shape; at least 0.
        defect: one of :data:`DEFECTS`, or ``None`` for a good part.
        size: height and width in pixels, 64 to 4096 each.

    Returns:
        The picture, uint8 ``[H, W, 3]`` BGR, and the mask of the defect, uint8 ``[H, W]``, 255
        where the picture was touched and 0 elsewhere; all 0 for a good part, never for another.

    Raises:
        ConfigurationError: unknown defect, negative seed, or a size outside the limits.
    """
    _check(seed, defect, size)
    rng = np.random.default_rng([seed, _SCENE])
    scene = random_scene(size, rng)
    grid = make_grid(scene)
    layers = part_layers(scene, grid, rng)
    mask = np.zeros(size, np.uint8)
    if defect is not None:
        kind = np.random.default_rng([seed, _DEFECT, DEFECTS.index(defect)])
        layers, touched = DAMAGES[defect](scene, grid, layers, kind)
        mask[touched > 0] = 255
    frame = expose(compose(scene, grid, layers), np.random.default_rng([seed, _NOISE]))
    return frame, mask


def _check(seed: int, defect: str | None, size: tuple[int, int]) -> None:
    if seed < 0:
        raise ConfigurationError(f"seed is {seed}, expected 0 or more")
    if defect is not None and defect not in DEFECTS:
        raise ConfigurationError(f"unknown defect {defect!r}, expected one of {', '.join(DEFECTS)}")
    if not all(SMALLEST_PX <= side <= LARGEST_PX for side in size):
        raise ConfigurationError(
            f"a test picture of {size[0]} x {size[1]} px (height x width) cannot be drawn: "
            f"expected {SMALLEST_PX} to {LARGEST_PX} px a side"
        )
