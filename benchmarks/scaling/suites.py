"""The four suites: what is measured at which sizes, and the laws expected of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from patchline.benchmarks.scaling.collect import Series
from patchline.benchmarks.scaling.laws import Expected
from patchline.benchmarks.scaling.models import make_model
from patchline.benchmarks.scaling.names import (
    BATCH,
    CORESET,
    CROSS_FIT,
    FEATURES,
    FIT,
    FRAME,
    PEAK,
    SEARCH,
)
from patchline.runtime.errors import ConfigurationError

LEAST_CALLS = 5
"""Of one visit, however long a call takes."""


@dataclass(frozen=True)
class Options:
    """What the suites share.

    Attributes:
        backbone: of timm, untrained.
        searches: one series for each.
        image_size: side of the frames in pixels, where it does not vary.
        bank_rows: of the bank, likewise.
        seconds: of one visit to a model.
        threads: of ONNX Runtime and of PyTorch; 0 for their own choice.
        grid: patches along a side of an image in the suite ``fit``.
        ratio: of the coreset there.
        budget_mib: memory budget there.
        folder: for models and features on disk.
    """

    backbone: str
    searches: Sequence[str]
    image_size: int
    bank_rows: int
    seconds: float
    threads: int
    grid: int
    ratio: float
    budget_mib: int
    folder: Path


def bank_series(
    options: Options, sizes: Sequence[int], tell: Callable[[str], None]
) -> list[Series]:
    """One frame, and the search in it alone, against the rows of the bank."""
    whole = {
        FRAME: Expected(
            "a + b * rows",
            1,
            "The backbone does not know the bank, and the search multiplies every patch with every "
            "row.",
        ),
        PEAK: Expected(
            "a + b * rows",
            1,
            "For each row there are its values, those prepared for the product, and its product "
            "with every patch.",
        ),
    }
    alone = {
        SEARCH: Expected(
            "b * rows",
            1,
            "One product of patches and rows, and two passes over what it gives.",
        ),
        PEAK: whole[PEAK],
    }
    pruned = {
        SEARCH: Expected(
            "a + b * rows",
            1,
            "One product for the estimate of every row, and as many candidates whatever the bank.",
        ),
        PEAK: whole[PEAK],
    }
    series = []
    for search in options.searches:
        for quantity, laws in ((FRAME, whole), (SEARCH, alone if search == "exact" else pruned)):
            make = partial(_model, options, search=search, only_search=quantity == SEARCH)
            paths = {rows: make(tell, bank_rows=rows) for rows in sizes}
            arguments = partial(_engine_point, options, paths, quantity)
            name = f"{quantity} ({search})"
            series.append(Series(name, "bank_rows", sizes, "engine_point", arguments, laws))
    return series


def image_series(
    options: Options, sizes: Sequence[int], tell: Callable[[str], None]
) -> list[Series]:
    """One frame against the side of the frames."""
    laws = {
        FRAME: Expected(
            "a + b * side ** 2",
            2,
            "The backbone works per pixel and the search per patch, and both grow with the square "
            "of the side.",
        ),
        PEAK: Expected(
            "a + b * side ** 2",
            2,
            "Weights and bank stay; activations and the products with the bank are per patch.",
        ),
    }
    series = []
    for search in options.searches:
        paths = {side: _model(options, tell, search=search, image_size=side) for side in sizes}
        arguments = partial(_engine_point, options, paths, FRAME)
        name = f"{FRAME} ({search})"
        series.append(Series(name, "image_size_px", sizes, "engine_point", arguments, laws))
    return series


def batch_series(
    options: Options, sizes: Sequence[int], tell: Callable[[str], None]
) -> list[Series]:
    """One call against the frames in it."""
    laws = {
        BATCH: Expected(
            "a + b * frames",
            1,
            "Frames have nothing in common but the call itself and weights that are read once.",
        ),
        PEAK: Expected(
            "a + b * frames", 1, "Weights and bank stay, everything else is there per frame."
        ),
    }
    series = []
    for search in options.searches:
        path = _model(options, tell, search=search)
        paths = dict.fromkeys(sizes, path)
        arguments = partial(_engine_point, options, paths, BATCH, batched=True)
        name = f"{BATCH} ({search})"
        series.append(Series(name, "frames", sizes, "engine_point", arguments, laws))
    return series


def fit_series(options: Options, sizes: Sequence[int], tell: Callable[[str], None]) -> list[Series]:
    """A fit and its parts against the number of training images."""
    kept = "Every image adds its projections"
    features = Expected("b * images", 1, "Every image is projected and stored once.")
    in_memory = Expected("a + b * images", 1, f"{kept} and its embeddings.")
    on_disk = Expected("a + b * images", 1, f"{kept}, while its embeddings lie on disk.")
    by_ratio = Expected(
        "b * images ** 2",
        2,
        "Every pick is compared with every row, and both grow with the images.",
    )
    by_rows = Expected(
        "a + b * images", 1, "The picks stay as many, and each is compared with every row."
    )
    whole = {
        CROSS_FIT: Expected(
            "b * images ** 2",
            2,
            "Five coresets, and every patch searched in one of five banks that grow with the "
            "images; scoring grows with the images alone and shows as long as these are few.",
        ),
        "bank": by_ratio,
        FIT: Expected("b * images ** 2", 2, "Cross-fit and bank are most of it."),
    }
    point = partial(_fit_point, options)
    projections = Expected("a + b * images", 1, f"{kept}; the bank is small beside them.")
    return [
        Series(name, "images", sizes, "fit_point", arguments, laws)
        for name, arguments, laws in (
            (
                "features in memory",
                partial(point, FEATURES, spill="never"),
                {FEATURES: features, PEAK: in_memory},
            ),
            (
                "features on disk",
                partial(point, FEATURES, spill="always"),
                {FEATURES: features, PEAK: on_disk},
            ),
            (
                "coreset at a fixed ratio",
                partial(point, CORESET),
                {CORESET: by_ratio, PEAK: projections},
            ),
            (
                "coreset of fixed rows",
                partial(point, CORESET, rows=options.bank_rows),
                {CORESET: by_rows, PEAK: projections},
            ),
            # Memory has no one law here: past the budget the features leave it.
            ("fit within the memory budget", partial(point, FIT), whole),
        )
    ]


SUITES: dict[str, Callable[[Options, Sequence[int], Callable[[str], None]], list[Series]]] = {
    "bank": bank_series,
    "image": image_series,
    "batch": batch_series,
    "fit": fit_series,
}

SIZES: dict[str, tuple[int, ...]] = {
    "bank": (1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000),
    "image": (224, 256, 320, 384, 448, 512),
    "batch": (1, 2, 4, 8, 16),
    "fit": (100, 200, 500, 1000, 2000, 5000, 10_000),
}
"""Of each suite, unless told otherwise."""


def parse_sizes(text: str) -> tuple[int, ...]:
    """``1000,2000`` -> ascending numbers, at least three different ones.

    Raises:
        ConfigurationError: another form.
    """
    try:
        sizes = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        sizes = ()
    if len(sizes) < 3 or sizes[0] < 1:
        raise ConfigurationError(
            f"sizes are {text!r}, expected at least three different numbers such as 1000,2000,5000"
        )
    return sizes


def _model(
    options: Options,
    tell: Callable[[str], None],
    *,
    search: str,
    image_size: int = 0,
    bank_rows: int = 0,
    only_search: bool = False,
) -> Path:
    side, rows = image_size or options.image_size, bank_rows or options.bank_rows
    name = f"{'search' if only_search else 'model'}-{search}-{side}-{rows}.onnx"
    path = options.folder / name
    if not path.exists():
        tell(f"making a model of {rows:,} rows at {side} px ({search} search)")
        make_model(
            path,
            backbone=options.backbone,
            image_size=side,
            bank_rows=rows,
            search=search,
            only_search=only_search,
        )
    return path


def _engine_point(
    options: Options, paths: dict[int, Path], quantity: str, size: int, *, batched: bool = False
) -> dict[str, Any]:
    return {
        "model": str(paths[size]),
        "quantity": quantity,
        "batch": size if batched else 1,
        "seconds": options.seconds,
        "least": LEAST_CALLS,
        "threads": options.threads,
    }


def _fit_point(
    options: Options, part: str, images: int, *, rows: int = 0, spill: str = "budget"
) -> dict[str, Any]:
    return {
        "folder": str(options.folder),
        "part": part,
        "images": images,
        "grid": options.grid,
        "ratio": options.ratio,
        "rows": rows,
        "spill": spill,
        "budget_mib": options.budget_mib,
        "threads": options.threads,
    }
