"""Where a drawn part lies, how it is lit, and what the sensor makes of the light.

Lengths are in units of the part's outer radius and angles in radians, so that a picture of any
size shows the same part.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.preprocess import Frame

Plane = npt.NDArray[np.float32]
"""float32 ``[H, W]``."""


@dataclass(frozen=True)
class Scene:
    """What differs from picture to picture.

    Attributes:
        size: height and width in pixels.
        center_px: row and column of the part's centre.
        radius_px: outer radius.
        rotation: angle of the first bolt hole.
        light: direction the light comes from, in the picture's plane.
        highlight: strength of the streak that turned metal shows across the light.
        brightness: exposure, 1 is nominal.
        gradient: how much brighter the side towards the light is.
        vignetting: how much darker the corners are.
        warmth: shift of the light's colour from blue to red.
    """

    size: tuple[int, int]
    center_px: tuple[float, float]
    radius_px: float
    rotation: float
    light: float
    highlight: float
    brightness: float
    gradient: float
    vignetting: float
    warmth: float


@dataclass(frozen=True)
class Grid:
    """Pixel positions relative to the part, float32 ``[H, W]`` each.

    Attributes:
        x: to the right, in radii.
        y: downwards, in radii.
        radius: distance from the centre, in radii.
        angle: 0 to 2 pi.
        facing: cosine of the angle to the light: 1 on the side that faces it.
        pixel: the size of one pixel, in radii.
    """

    x: Plane
    y: Plane
    radius: Plane
    angle: Plane
    facing: Plane
    pixel: float


def random_scene(size: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Place and light a part at random, as a fixture and a lamp on a line vary.

    The whole part lies inside the picture.
    """
    height, width = size
    radius = min(size) * rng.uniform(0.423, 0.429)
    slack = 0.15 * (min(size) / 2 - radius)
    return Scene(
        size=size,
        center_px=(height / 2 + rng.uniform(-slack, slack), width / 2 + rng.uniform(-slack, slack)),
        radius_px=radius,
        rotation=rng.uniform(-0.06, 0.06),
        light=-2.2 + rng.uniform(-0.08, 0.08),
        highlight=rng.uniform(0.26, 0.30),
        brightness=rng.uniform(0.97, 1.02),
        gradient=rng.uniform(0.03, 0.05),
        vignetting=rng.uniform(0.10, 0.13),
        warmth=rng.uniform(-0.006, 0.006),
    )


def make_grid(scene: Scene) -> Grid:
    """Pixel positions relative to the part of a scene."""
    rows, columns = (
        (np.arange(length, dtype=np.float32) - np.float32(middle)) / np.float32(scene.radius_px)
        for length, middle in zip(scene.size, scene.center_px, strict=True)
    )
    y, x = np.meshgrid(rows, columns, indexing="ij")
    radius, angle = (as_plane(polar) for polar in cv2.cartToPolar(x, y))
    facing = towards_light(scene, x, y)
    facing /= np.maximum(radius, np.float32(1e-3))
    return Grid(x, y, radius, angle, facing, 1 / scene.radius_px)


def towards_light(scene: Scene, x: Plane, y: Plane) -> Plane:
    """How far positions lie towards the light: the same unit and shape as ``x`` and ``y``."""
    return as_plane(x * np.float32(np.cos(scene.light)) + y * np.float32(np.sin(scene.light)))


def illumination(scene: Scene, grid: Grid) -> Plane:
    """How bright the scene's light is at each pixel, 1 being nominal."""
    field = towards_light(scene, grid.x, grid.y)
    field *= scene.gradient
    field += 1
    rows, columns = (np.linspace(-1, 1, length, dtype=np.float32) for length in scene.size)
    distance = (rows * rows)[:, None] + columns * columns
    field *= scene.brightness * (1 - 0.5 * scene.vignetting * distance)
    return field


def expose(light: Plane, rng: np.random.Generator) -> Frame:
    """What the sensor makes of light: shot and read noise, 8 bits.

    The noise at a pixel depends on its own brightness and the generator alone.

    Args:
        light: float32 ``[H, W, 3]`` BGR, 1 is full scale; overwritten.
        rng: gives the noise.
    """
    noise = white_noise(light.shape, rng)
    noise *= np.sqrt(1.0 + 5.0 * np.clip(light[..., 1:2], 0, 1))
    light *= 255
    light += noise
    light += 0.5
    return np.clip(light, 0, 255, out=light).astype(np.uint8)


def white_noise(shape: tuple[int, ...], rng: np.random.Generator) -> Plane:
    """Independent random values of mean 0 and variance 1, float32."""
    # Uniform, not normal: a quarter of the time, and nobody can tell in 8 bits.
    noise: Plane = rng.random(shape, dtype=np.float32)
    noise -= 0.5
    noise *= 12**0.5
    return noise


def smooth_noise(size: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> Plane:
    """Random hills of unit height, about ``cells`` of them down and across: ``[H, W]``."""
    coarse = rng.standard_normal(cells, dtype=np.float32)
    return as_plane(cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC))


def as_plane(values: npt.ArrayLike) -> Plane:
    """The values in float32, as they are if they already were."""
    return np.asarray(values, dtype=np.float32)
