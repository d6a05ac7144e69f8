"""Which pictures the ranges of an INT8 graph are found on that several classes share.

Ranges of one class alone clip what another one's pictures excite more: the pictures are drawn
evenly from all classes that are exported with the graph in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchline.calibration.ranges import LEAST_IMAGES, spread
from patchline.export.datasets import GoodPictures
from patchline.export.precision.compare import evenly_spread
from patchline.runtime.errors import ConfigurationError


def calibration_pictures(classes: Sequence[GoodPictures], images: int) -> tuple[Path, ...]:
    """``images`` good pictures, as many of each class as of any other, evenly spread over each.

    A class with fewer pictures than its part gives all of them, and the others give more. The
    order of the classes does not count.

    Args:
        classes: one or several, each with its good pictures.
        images: how many in all; all there are where there are fewer.

    Raises:
        ConfigurationError: less than eight are asked for or there, or less than one of each class.
    """
    if len(classes) == 1:
        return spread(classes[0].paths, images)
    ordered = sorted(classes, key=lambda one: one.class_name)
    check_enough(len(ordered), images)
    everything = [path for one in ordered for path in one.paths]
    spread(everything, images)  # for what it refuses
    shares = even_shares([len(one.paths) for one in ordered], images)
    pairs = zip(ordered, shares, strict=True)
    return tuple(path for one, share in pairs for path in evenly_spread(one.paths, share))


def check_enough(classes: int, images: int) -> None:
    """Refuse fewer calibration pictures than classes.

    Raises:
        ConfigurationError: there would be a class without one.
    """
    if images < classes:
        raise ConfigurationError(
            f"{images} calibration images were asked for, and {classes} classes share the INT8 "
            f"graph: at least one of each is needed. Raise --calibration-images to "
            f"{max(LEAST_IMAGES, classes)} or more"
        )


def even_shares(counts: Sequence[int], total: int) -> list[int]:
    """How many to take of each so that ``total`` are taken, and none gives more than it has.

    They differ by one at most, but for those that have no more; the earlier ones give more.

    Args:
        counts: how many each has, 0 or more.
        total: to take; all there are where that is less.

    Returns:
        The shares, in the order of ``counts``.
    """
    left = min(total, sum(counts))
    level = max(n for n in range(left + 1) if sum(min(count, n) for count in counts) <= left)
    shares = [min(count, level) for count in counts]
    more = [index for index, count in enumerate(counts) if count > level]
    for index in more[: left - sum(shares)]:
        shares[index] += 1
    return shares
