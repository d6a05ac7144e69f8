"""A machined gasket seen from above, drawn as layers: belt, turned metal, groove, seal, holes.

Every step works pixel by pixel: a layer that covers nothing at a pixel leaves its value bit for
bit, which is what makes defect masks exact. Large arrays are changed in place, because fresh
memory for each step would cost as much time as the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.camera.scene import (
    Grid,
    Plane,
    Scene,
    as_plane,
    illumination,
    smooth_noise,
    towards_light,
    white_noise,
)

METAL, SEAL, BELT, STAIN = range(4)
_BGR = np.array(
    [[1.03, 1.00, 0.96], [0.30, 0.40, 0.95], [0.88, 0.84, 0.72], [0.42, 0.66, 0.85]], np.float32
)
"""How each material reflects blue, green and red."""

BORE = 0.50
GROOVE = (0.56, 0.69)
SEAL_MIDDLE, SEAL_HALF_WIDTH = 0.625, 0.055
BOLT_CIRCLE, BOLT_RADIUS, BOLT_COUNTERSINK = 0.83, 0.070, 0.090
BOLTS = 6


@dataclass(frozen=True)
class Layer:
    """One surface: its material, its brightness (0 to 1) and how much of each pixel it covers."""

    name: str
    material: int
    shade: Plane
    cover: Plane


def part_layers(scene: Scene, grid: Grid, rng: np.random.Generator) -> list[Layer]:
    """The layers of a good part, from the belt upwards."""
    belt = _belt_shade(scene, grid, rng)
    seal = (SEAL_MIDDLE - SEAL_HALF_WIDTH, SEAL_MIDDLE + SEAL_HALF_WIDTH)
    distance, facing = _nearest_bolt(scene, grid)
    countersink = _inside(distance, BOLT_COUNTERSINK, grid.pixel)
    return [
        Layer("belt", BELT, belt, np.ones_like(belt)),
        Layer("face", METAL, _face_shade(scene, grid, rng), _ring(grid, BORE, 1.0)),
        Layer("groove", METAL, 0.20 - 0.08 * grid.facing, _ring(grid, *GROOVE)),
        Layer("seal", SEAL, _seal_shade(grid), _ring(grid, *seal)),
        Layer("countersink", METAL, 0.42 - 0.30 * facing, countersink),
        Layer("hole", BELT, 0.30 * belt, _inside(distance, BOLT_RADIUS, grid.pixel)),
    ]


def compose(scene: Scene, grid: Grid, layers: Sequence[Layer]) -> Plane:
    """Lay the layers over one another in the scene's light.

    Returns:
        float32 ``[H, W, 3]`` BGR, 1 is full scale.
    """
    light = np.zeros((len(_BGR), *scene.size), np.float32)
    for layer in layers:
        light *= 1 - layer.cover
        light[layer.material] += layer.cover * layer.shade
    light *= illumination(scene, grid)
    warmth = np.array([1 - scene.warmth, 1, 1 + scene.warmth], np.float32)
    return as_plane(cv2.transform(cv2.merge(list(light)), (_BGR * warmth).T))


def bolt_index(scene: Scene, grid: Grid) -> npt.NDArray[np.intp]:
    """Which of the bolt holes each pixel is nearest to: ``[H, W]``, 0 to ``BOLTS - 1``."""
    turns = (grid.angle - np.float32(scene.rotation)) * np.float32(BOLTS / (2 * np.pi))
    # Half a hole up rounds to the nearest; a whole turn up keeps it from being negative.
    turns += BOLTS + 0.5
    bolts: npt.NDArray[np.intp] = np.arange(2 * BOLTS + 2) % BOLTS
    index: npt.NDArray[np.intp] = bolts[turns.astype(np.intp)]
    return index


def _inside(distance: Plane, radius: float, pixel: float) -> Plane:
    # An edge is about a pixel and a half wide, as a good lens draws it.
    cover = (radius - distance) * (1 / (1.6 * pixel))
    cover += 0.5
    return np.clip(cover, 0, 1, out=cover)


def _ring(grid: Grid, inner: float, outer: float) -> Plane:
    cover = _inside(grid.radius, outer, grid.pixel)
    cover *= 1 - _inside(grid.radius, inner, grid.pixel)
    return cover


def _nearest_bolt(scene: Scene, grid: Grid) -> tuple[Plane, Plane]:
    index = bolt_index(scene, grid)
    angles = scene.rotation + np.arange(BOLTS) * (2 * np.pi / BOLTS)
    x = grid.x - as_plane(BOLT_CIRCLE * np.cos(angles))[index]
    y = grid.y - as_plane(BOLT_CIRCLE * np.sin(angles))[index]
    distance = np.maximum(as_plane(cv2.magnitude(x, y)), np.float32(1e-3))
    return distance, towards_light(scene, x, y) / distance


def _face_shade(scene: Scene, grid: Grid, rng: np.random.Generator) -> Plane:
    # Concentric marks reflect in two opposite fans: towards the light and away from it.
    fan = np.exp(4.0 * (grid.facing * grid.facing - 1))
    shade = _tool_marks(grid, rng)
    shade *= 0.016 * (0.8 + fan)
    shade += 0.46
    shade += scene.highlight * fan
    rim = _inside(1 - grid.radius, 0.045, grid.pixel)
    shade += rim * (0.52 + 0.30 * grid.facing - shade)
    bore = _inside(grid.radius - BORE, 0.025, grid.pixel)
    shade += bore * (0.45 - 0.30 * grid.facing - shade)
    return shade


def _tool_marks(grid: Grid, rng: np.random.Generator) -> Plane:
    # Noise that is fine across the marks and slow along them: stretched in polar coordinates.
    sectors, rings = 8, max(16, round(1.1 / grid.pixel))
    noise = rng.standard_normal((sectors + 1, rings), dtype=np.float32)
    noise[-1] = noise[0]
    column = grid.radius * np.float32(rings / 1.1)
    row = grid.angle * np.float32(sectors / (2 * np.pi))
    return as_plane(
        cv2.remap(noise, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )


def _seal_shade(grid: Grid) -> Plane:
    tilt = (grid.radius - SEAL_MIDDLE) * (1 / SEAL_HALF_WIDTH)
    gloss = tilt - 0.45 * grid.facing
    shade = as_plane(0.30 * np.exp(gloss * gloss * -25.0))
    shade += 0.46
    shade += tilt * (0.10 * grid.facing - 0.22 * tilt)
    return shade


def _belt_shade(scene: Scene, grid: Grid, rng: np.random.Generator) -> Plane:
    shade = as_plane(cv2.GaussianBlur(white_noise(scene.size, rng), (0, 0), 0.9))
    shade *= 0.022
    shade += 0.24
    shade += 0.006 * smooth_noise(scene.size, (5, 5), rng)
    phase = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    shade += (0.010 * np.sin(grid.y[:, :1] * 95 + phase[0])) * np.sin(grid.x[:1] * 95 + phase[1])
    shade *= 1 - 0.6 * _shadow(scene, grid)
    return shade


def _shadow(scene: Scene, grid: Grid) -> Plane:
    offset, softness = 0.05, 0.10
    x = grid.x + np.float32(offset * np.cos(scene.light))
    y = grid.y + np.float32(offset * np.sin(scene.light))
    distance = as_plane(cv2.magnitude(x, y))
    shadow = as_plane(np.clip((1.03 - distance) / softness + 0.5, 0, 1))
    shadow *= 1 - np.clip((BORE - distance) / softness, 0, 1)
    return shadow
