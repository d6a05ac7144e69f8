"""A small data set of drawn gaskets in MVTec layout: good, defective, and where the defects are.

::

    demo/data/gasket/train/good/000.png …
                     test/good/000.png …   test/chip/000.png …
                     ground_truth/chip/000_mask.png …
                     drawn.json            how it was drawn; written last
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from patchline.runtime.camera.test_pattern import DEFECTS, draw_part
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.files import write_errors

RECORD = "drawn.json"
"""Names the file that says how a data set was drawn, and that it is complete."""

# Past the seeds that test:// draws, so that a model is not shown what it was fitted on.
_FIRST_SEED, _SEEDS_PER_SET = 1_000_000, 100_000


@dataclass(frozen=True)
class Picture:
    """One picture to be drawn.

    Attributes:
        file: path below the class folder.
        seed: of :func:`draw_part`; no two pictures share one.
        defect: ``None`` for a good part.
    """

    file: str
    seed: int
    defect: str | None = None

    @property
    def mask(self) -> str | None:
        """Path of the mask below the class folder; a good part has none."""
        if self.defect is None:
            return None
        return f"ground_truth/{self.defect}/{Path(self.file).stem}_mask.png"


def write_demo_data(
    root: Path,
    *,
    class_name: str = "gasket",
    good: int = 60,
    test_good: int = 10,
    test_defective: int = 10,
    seed: int = 0,
    size: tuple[int, int] = (480, 480),
) -> Path:
    """Draw a data set in MVTec layout; a complete one of the same parameters is kept.

    The pictures appear all at once: an interrupted run leaves none, and the next starts anew.

    Args:
        root: folder of the class folder; made if it does not exist.
        class_name: name of the class folder.
        good: how many good pictures to fit on, at least 1.
        test_good: how many good pictures to test on.
        test_defective: how many defective ones, the defects taking turns.
        seed: another seed gives other pictures; the same seed the same bytes.
        size: height and width in pixels.

    Returns:
        The class folder, ``root / class_name``.

    Raises:
        ConfigurationError: a negative or too large number, or a size that cannot be drawn.
        WriteError: the folder cannot be written, or holds something that was not drawn here.
    """
    pictures = plan_pictures(
        good=good, test_good=test_good, test_defective=test_defective, seed=seed
    )
    record = _record(pictures, size)
    folder = root / class_name
    if is_complete(folder, record):
        return folder
    _refuse_foreign(folder)
    with write_errors(folder):
        _draw_all(folder, pictures, size, record)
    return folder


def plan_pictures(*, good: int, test_good: int, test_defective: int, seed: int) -> list[Picture]:
    """What a data set consists of, in the order of its seeds.

    Raises:
        ConfigurationError: a negative number, no good picture, or more pictures than seeds.
    """
    if good < 1 or min(test_good, test_defective, seed) < 0:
        raise ConfigurationError(
            f"good={good}, test_good={test_good}, test_defective={test_defective}, seed={seed}: "
            "expected at least 1 good picture and no negative number"
        )
    if good + test_good + test_defective > _SEEDS_PER_SET:
        raise ConfigurationError(f"a demo data set holds at most {_SEEDS_PER_SET} pictures")
    files: list[tuple[str, str | None]] = [
        *((f"train/good/{i:03}.png", None) for i in range(good)),
        *((f"test/good/{i:03}.png", None) for i in range(test_good)),
        *_defective_files(test_defective),
    ]
    first = _FIRST_SEED + seed * _SEEDS_PER_SET
    return [Picture(file, first + i, defect) for i, (file, defect) in enumerate(files)]


def is_complete(folder: Path, record: dict[str, Any]) -> bool:
    """Whether a folder was drawn as ``record`` says and still holds every file of it."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == record) and all((folder / name).is_file() for name in record["files"])


def _defective_files(count: int) -> Iterator[tuple[str, str]]:
    for i in range(count):
        defect = DEFECTS[i % len(DEFECTS)]
        yield f"test/{defect}/{i // len(DEFECTS):03}.png", defect


def _record(pictures: list[Picture], size: tuple[int, int]) -> dict[str, Any]:
    files = [picture.file for picture in pictures]
    masks = [picture.mask for picture in pictures if picture.mask is not None]
    return {
        "size": list(size),
        "pictures": [asdict(picture) for picture in pictures],
        "files": files + masks,
        "drawing_sha256": _drawing_digest(size),
    }


def _drawing_digest(size: tuple[int, int]) -> str:
    # A newer Patchline may draw otherwise; its first pictures tell without a version to forget.
    digest = hashlib.sha256()
    for defect in (None, *DEFECTS):
        frame, mask = draw_part(0, defect=defect, size=size)
        digest.update(frame.tobytes() + mask.tobytes())
    return digest.hexdigest()


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not (folder / RECORD).is_file():
        raise WriteError(
            f"{folder} exists and was not drawn by this demo. It is left as it is: "
            "choose another folder with --out, or move it away"
        )


def _draw_all(
    folder: Path, pictures: list[Picture], size: tuple[int, int], record: dict[str, Any]
) -> None:
    stage, old = (folder.with_name(f".{folder.name}.{part}") for part in ("new", "old"))
    for left in (stage, old):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        for picture in pictures:
            _draw(stage, picture, size)
        (stage / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        stage.rename(folder)
    finally:
        for left in (stage, old):
            shutil.rmtree(left, ignore_errors=True)


def _draw(stage: Path, picture: Picture, size: tuple[int, int]) -> None:
    frame, mask = draw_part(picture.seed, defect=picture.defect, size=size)
    _write_png(stage / picture.file, frame)
    if picture.mask is not None:
        _write_png(stage / picture.mask, mask)


def _write_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Sensor noise does not compress: a higher level costs time and saves nothing.
    _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    path.write_bytes(data.tobytes())
