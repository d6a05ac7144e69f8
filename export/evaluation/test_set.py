"""The labelled test set of a class with its masks, checked before the engine runs.

MVTec layout (Bergmann et al., "The MVTec anomaly detection dataset", IJCV 2021):
``test/DEFECT/NAME.png`` beside ``ground_truth/DEFECT/NAME_mask.png``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from patchline.export.datasets import TestPicture, labelled_pictures
from patchline.export.evaluation.masks import (
    Mask,
    MaskFault,
    check_mask,
    read_mask,
    read_own_mask,
    shrink,
)
from patchline.runtime.contract import ModelSize
from patchline.runtime.errors import ClassNotFoundError, ImageReadError
from patchline.runtime.image_file import is_image, read_image

__all__ = ["TestSet", "load_test_set", "read_mask"]

_NAMED = 3
"""So many files of a problem are named; the others are counted."""


@dataclass(frozen=True)
class TestSet:
    """What is there to evaluate a class on.

    Attributes:
        pictures: good ones first; may be empty.
        masks: picture -> its mask, bool ``[H, W]`` at model size: one for every defective
            picture, or none at all where there are no masks or one of them is wrong or missing.
        problems: sentences about masks that are missing or wrong; the files are named.
        notes: sentences about what is simply not there.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    pictures: tuple[TestPicture, ...]
    masks: Mapping[Path, Mask]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def load_test_set(data: Path, class_name: str, model_size: ModelSize) -> TestSet:
    """List the test pictures of a class and read their masks.

    Raises:
        ClassNotFoundError: no such class (says which exist).
        ImageReadError: a defective picture cannot be read; it is named.
    """
    folder = _class_folder(data, class_name)
    pictures = tuple(labelled_pictures(data, class_name))
    files = _mask_files(folder / "ground_truth")
    if not files:
        return TestSet(pictures, {}, (), _note_of_no_masks(folder, pictures))
    checks = _MaskChecks(data, model_size)
    checks.pair(pictures, files)
    masks = {p.path: mask for p in pictures if (mask := checks.mask_of(p)) is not None}
    return TestSet(pictures, masks if checks.are_enough else {}, checks.sentences(), ())


class _MaskChecks:
    """Collects what is wrong with the masks of one class."""

    def __init__(self, data: Path, model_size: ModelSize) -> None:
        self._data = data
        self._size = model_size
        self._faults: dict[MaskFault, list[str]] = defaultdict(list)

    def pair(self, pictures: Iterable[TestPicture], files: tuple[Path, ...]) -> None:
        """Find masks without a picture, and pictures with several masks."""
        by_name = defaultdict(list)
        for file in files:
            by_name[file.parent.name, file.stem].append(file)
        taken: set[Path] = set()
        for picture in pictures:
            names = (f"{picture.path.stem}_mask", picture.path.stem)
            found = [file for name in names for file in by_name[picture.defect, name]]
            taken.update(found)
            if len(found) > 1:
                self._add(MaskFault.SEVERAL, picture.path, " and ".join(f.name for f in found))
        for file in files:
            if file not in taken:
                self._add(MaskFault.WITHOUT_PICTURE, file)

    def mask_of(self, picture: TestPicture) -> Mask | None:
        """The mask of a defective picture at model size; ``None`` for good ones and faults."""
        if picture.mask is None:
            if picture.is_defective:
                self._add(MaskFault.MISSING, picture.path)
            return None
        try:
            own = read_own_mask(picture.mask)
        except ImageReadError as error:
            self._faults[MaskFault.UNREADABLE].append(str(error).removeprefix("cannot read "))
            return None
        if not picture.is_defective:
            if own.any():
                self._add(MaskFault.OF_GOOD, picture.mask)
            return None
        return self._checked(picture, picture.mask, own)

    def _checked(self, picture: TestPicture, path: Path, own: Mask) -> Mask | None:
        height, width = read_image(picture.path).shape[:2]
        fault = check_mask(own, (height, width), self._size)
        if fault is None:
            return shrink(own, self._size)
        found = f"{own.shape[0]} x {own.shape[1]}, picture {height} x {width}"
        self._add(fault, path, found if fault is MaskFault.OTHER_SIZE else "")
        return None

    @property
    def are_enough(self) -> bool:
        """Whether every picture has its mask; one that belongs to no picture does no harm."""
        return not self._faults.keys() - {MaskFault.WITHOUT_PICTURE}

    def sentences(self) -> tuple[str, ...]:
        """One sentence per kind of fault; three files each are named."""
        return tuple(
            f"{fault.what} ({len(entries)}): {_first(entries)}. {fault.remedy}"
            for fault, entries in self._faults.items()
        )

    def _add(self, fault: MaskFault, path: Path, detail: str = "") -> None:
        name = path.relative_to(self._data).as_posix()
        self._faults[fault].append(f"{name} ({detail})" if detail else name)


def _first(entries: list[str]) -> str:
    rest = len(entries) - _NAMED
    return ", ".join(entries[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _class_folder(data: Path, class_name: str) -> Path:
    if class_name in ("", "..") or Path(class_name).name != class_name:
        raise ClassNotFoundError(f"{class_name!r} is no class name: expected a folder's name")
    if not data.is_dir():
        raise ClassNotFoundError(
            f"the data folder {data} does not exist. Give --data the folder that holds the "
            "class folders"
        )
    if not (data / class_name).is_dir():
        existing = sorted(path.parent.name for path in data.glob("*/test") if path.is_dir())
        raise ClassNotFoundError(
            f"{data} has no class {class_name}. Classes with a test folder there: "
            f"{', '.join(existing) or 'none'}. --cls NAME judges a model on another class folder"
        )
    return data / class_name


def _mask_files(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path)))


def _note_of_no_masks(folder: Path, pictures: tuple[TestPicture, ...]) -> tuple[str, ...]:
    defective = [
        picture.path.relative_to(folder.parent).as_posix()
        for picture in pictures
        if picture.is_defective
    ]
    if not defective:
        return ()
    return (
        f"there are no masks in {folder / 'ground_truth'}: image metrics are given, pixel metrics "
        f"are not. Defective pictures without a mask ({len(defective)}): {_first(defective)}",
    )
