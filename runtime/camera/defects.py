"""The four ways in which a drawn gasket goes wrong: chip, scratch, contamination, missing.

Each takes the layers of a good part and gives the layers of the defective one, with the pixels it
touched: float32 ``[H, W]``, exactly 0 where nothing changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.camera import drawing
from patchline.runtime.camera.drawing import Layer
from patchline.runtime.camera.scene import Grid, Plane, Scene, as_plane, smooth_noise

Damage = Callable[[Scene, Grid, Sequence[Layer], np.random.Generator], tuple[list[Layer], Plane]]

_VISIBLE = np.float32(0.06)
"""A pixel that is covered by less is left as it was: nobody could see it."""
_SHIFT = 4
"""OpenCV's fractional bits of a coordinate."""


def chip(
    scene: Scene, grid: Grid, layers: Sequence[Layer], rng: np.random.Generator
) -> tuple[list[Layer], Plane]:
    """A bite out of the outer rim: the belt shows through, past a rough, broken edge."""
    where = rng.uniform(0, 2 * np.pi)
    depth, half_width = rng.uniform(0.10, 0.18), rng.uniform(0.11, 0.20)
    jagged = rng.uniform(0.85, 1.15, 18)
    bite = _bite(scene, where, depth, half_width, jagged)
    through = _bite(scene, where, 0.72 * depth, 0.80 * half_width, jagged)
    metal = _by_name(layers, "face").cover
    rough = smooth_noise(scene.size, _cells(scene, 0.03), rng)
    broken = 0.30 + 0.08 * rough - 0.12 * grid.facing
    belt = _by_name(layers, "belt").shade
    edge = Layer("broken edge", drawing.METAL, broken.astype(np.float32), _seen(bite * metal))
    gap = Layer("gap", drawing.BELT, belt, through * edge.cover)
    return [*layers, edge, gap], edge.cover


def scratch(
    scene: Scene, grid: Grid, layers: Sequence[Layer], rng: np.random.Generator
) -> tuple[list[Layer], Plane]:
    """A thin, slightly bent line across the turned face, bright or dark."""
    start = _point(rng.uniform(0.76, 0.90), rng.uniform(0, 2 * np.pi))
    # Mostly along the rim, so that it stays on the metal, and never quite along the tool marks.
    heading = (
        np.arctan2(start[1], start[0]) + np.pi / 2 + rng.choice([-1, 1]) * rng.uniform(0.15, 0.55)
    )
    length, bend = rng.uniform(0.40, 0.80), rng.uniform(-0.5, 0.5)
    steps = np.linspace(-0.5, 0.5, 24)
    turns = heading + bend * steps
    line = start + length * np.stack([steps * np.cos(turns), steps * np.sin(turns)], 1)
    width = max(1, round(rng.uniform(0.012, 0.022) * scene.radius_px))
    canvas = np.zeros(scene.size, np.uint8)
    cv2.polylines(canvas, [_pixels(scene, line)], False, 255, width, cv2.LINE_AA, _SHIFT)
    depth = np.clip(0.8 + 0.25 * smooth_noise(scene.size, (12, 12), rng), 0.45, 1)
    cover = _seen(_unit(canvas) * depth.astype(np.float32) * _bare_metal(layers))
    shade = np.full(scene.size, rng.choice([0.12, 0.98]), np.float32)
    return [*layers, Layer("scratch", drawing.METAL, shade, cover)], cover


def contamination(
    scene: Scene, grid: Grid, layers: Sequence[Layer], rng: np.random.Generator
) -> tuple[list[Layer], Plane]:
    """A dark, ragged blob of dirt or oil with soft edges, on metal and seal alike."""
    middle = _point(rng.uniform(0.58, 0.90), rng.uniform(0, 2 * np.pi))
    radius, stretch, turn = rng.uniform(0.09, 0.18), rng.uniform(1.0, 1.8), rng.uniform(0, np.pi)
    x, y = grid.x - np.float32(middle[0]), grid.y - np.float32(middle[1])
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = (x * cosine + y * sine) / np.float32(stretch), y * cosine - x * sine
    ragged = 0.22 * smooth_noise(scene.size, _cells(scene, 0.08), rng)
    height = 1 - np.sqrt(along * along + across * across) / radius + ragged
    # Ragged edges must not sow specks all over the part.
    near = np.clip(2.5 - np.sqrt(x * x + y * y) / radius, 0, 1)
    cover = np.clip(height / 0.45, 0, 1) * near * rng.uniform(0.80, 0.97)
    seen = _seen(cover.astype(np.float32) * _solid(layers))
    shade = 0.14 + 0.03 * smooth_noise(scene.size, _cells(scene, 0.04), rng)
    return [*layers, Layer("stain", drawing.STAIN, shade.astype(np.float32), seen)], seen


def missing(
    scene: Scene, grid: Grid, layers: Sequence[Layer], rng: np.random.Generator
) -> tuple[list[Layer], Plane]:
    """A bolt hole that was countersunk but not drilled, or a piece of the seal (or all of it).

    A hole that leaves no trace is not drawn: bare metal is normal everywhere else on the face,
    and a method that compares patches, not places, cannot miss what it never expects.
    """
    if rng.uniform() < 0.4:
        return _undrilled(scene, grid, layers, rng)
    span = 2 * np.pi if rng.uniform() < 0.2 else rng.uniform(0.35, 1.8)
    offset = (grid.angle - np.float32(rng.uniform(0, 2 * np.pi))) % np.float32(2 * np.pi)
    return _without_seal(layers, offset <= np.float32(span))


DAMAGES: dict[str, Damage] = {
    "chip": chip,
    "scratch": scratch,
    "contamination": contamination,
    "missing": missing,
}
"""Every defect by name."""


def _undrilled(
    scene: Scene, grid: Grid, layers: Sequence[Layer], rng: np.random.Generator
) -> tuple[list[Layer], Plane]:
    here = drawing.bolt_index(scene, grid) == rng.integers(drawing.BOLTS)
    cover = np.where(here, _by_name(layers, "hole").cover, np.float32(0))
    rough = smooth_noise(scene.size, _cells(scene, 0.02), rng)
    bottom = (0.50 + 0.06 * rough).astype(np.float32)
    return [*layers, Layer("bottom", drawing.METAL, bottom, cover)], cover


def _without_seal(
    layers: Sequence[Layer], region: npt.NDArray[np.bool_]
) -> tuple[list[Layer], Plane]:
    seal = _by_name(layers, "seal")
    rest = replace(seal, cover=np.where(region, np.float32(0), seal.cover))
    return [rest if layer is seal else layer for layer in layers], seal.cover - rest.cover


def _bite(
    scene: Scene, where: float, depth: float, half_width: float, jagged: npt.NDArray[np.float64]
) -> Plane:
    turns = np.linspace(0, 2 * np.pi, len(jagged), endpoint=False)
    inwards, sideways = depth * jagged * np.cos(turns), half_width * jagged * np.sin(turns)
    radius, angle = 1 - inwards, where + sideways
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    canvas = np.zeros(scene.size, np.uint8)
    cv2.fillPoly(canvas, [_pixels(scene, outline)], 255, cv2.LINE_AA, _SHIFT)
    return _unit(canvas)


def _pixels(scene: Scene, points: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    row, column = scene.center_px
    pixels = points * scene.radius_px + [column, row]
    return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)


def _point(radius: float, angle: float) -> npt.NDArray[np.float64]:
    return np.array([radius * np.cos(angle), radius * np.sin(angle)])


def _by_name(layers: Sequence[Layer], name: str) -> Layer:
    return next(layer for layer in layers if layer.name == name)


def _bare_metal(layers: Sequence[Layer]) -> Plane:
    return _solid(layers) * (1 - _by_name(layers, "groove").cover)


def _solid(layers: Sequence[Layer]) -> Plane:
    return _by_name(layers, "face").cover * (1 - _by_name(layers, "countersink").cover)


def _cells(scene: Scene, radii: float) -> tuple[int, int]:
    cell = max(2.0, radii * scene.radius_px)
    return max(2, round(scene.size[0] / cell)), max(2, round(scene.size[1] / cell))


def _seen(cover: Plane) -> Plane:
    return as_plane(np.where(cover < _VISIBLE, np.float32(0), cover))


def _unit(canvas: npt.NDArray[np.uint8]) -> Plane:
    return as_plane(canvas.astype(np.float32) * np.float32(1 / 255))
