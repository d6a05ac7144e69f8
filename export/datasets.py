"""Pictures on disk: MVTec layout (``NAME/train/good``, ``test/*``, ``ground_truth/*``) or a folder.

A class without ``train/good`` is a plain folder of good pictures (no test set).
"""

from __future__ import annotations

import glob
import hashlib
from dataclasses import dataclass
from pathlib import Path

from patchline.calibration.labelled import GOOD, LabelledPicture, pictures_by_kind
from patchline.runtime.errors import ClassNotFoundError, DataError
from patchline.runtime.files import sha256_of_file
from patchline.runtime.image_file import is_image

ALL = "all"


@dataclass(frozen=True)
class GoodPictures:
    """The good pictures of one class, sorted by name.

    Attributes:
        class_name: name of the class, and of the model files made from it.
        folder: where the pictures lie.
        paths: at least one picture file.
    """

    class_name: str
    folder: Path
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class TestPicture(LabelledPicture):
    """One picture of a test set.

    Attributes:
        mask: ground truth, where there is one.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    mask: Path | None


def find_classes(data: Path) -> list[str]:
    """Names of the class folders in ``data``, sorted.

    A class folder holds ``train/good`` or pictures of its own.

    Raises:
        ClassNotFoundError: ``data`` is no folder.
    """
    if not data.is_dir():
        raise ClassNotFoundError(
            f"the data folder {data} does not exist. Give --data the folder that holds the "
            "class folders"
        )
    folders = (path for path in data.iterdir() if path.is_dir() and path.name[0] != ".")
    return sorted(folder.name for folder in folders if _is_class(folder))


def select_classes(data: Path, names: list[str]) -> list[GoodPictures]:
    """The good pictures of the named classes, each class once; ``all`` stands for every class.

    Raises:
        ClassNotFoundError: a class does not exist (says which do).
        DataError: a class holds no picture.
    """
    existing = find_classes(data)
    if ALL in names and ALL not in existing:
        names = existing
    if not names:
        raise ClassNotFoundError(f"{data} holds no class folder (NAME/train/good with pictures)")
    return [good_pictures(data, name) for name in dict.fromkeys(names)]


def good_pictures(data: Path, class_name: str) -> GoodPictures:
    """List the good pictures of one class.

    Raises:
        ClassNotFoundError: no such class (says which exist).
        DataError: the class holds no picture.
    """
    folder = data / class_name
    if class_name in ("", "..") or Path(class_name).name != class_name:
        raise ClassNotFoundError(f"{class_name!r} is no class name: expected a folder's name")
    if not folder.is_dir():
        raise ClassNotFoundError(_missing_class(data, class_name))
    return pictures_in(folder, class_name)


def pictures_in(folder: Path, class_name: str) -> GoodPictures:
    """The good pictures of a folder in MVTec layout (``train/good``) or of a plain one.

    Raises:
        DataError: there is none, or no such folder.
    """
    pictures = folder / "train" / GOOD if (folder / "train").is_dir() else folder
    paths = _pictures(pictures)
    if not paths:
        found = "holds no png, jpg, bmp, tif or webp file" if folder.is_dir() else "does not exist"
        raise DataError(f"class {class_name} has no good pictures: {pictures} {found}")
    return GoodPictures(class_name, pictures, paths)


def labelled_pictures(data: Path, class_name: str) -> list[TestPicture]:
    """The test set of a class in MVTec layout, good pictures first; empty where it has none."""
    folder = data / class_name
    if not (folder / "test").is_dir():
        return []
    return [
        TestPicture(
            item.path, item.defect, _mask_of(item.path, folder / "ground_truth" / item.defect)
        )
        for item in pictures_by_kind(folder / "test")
    ]


def labelled_folder(pictures: GoodPictures) -> Path | None:
    """The folder of a class that is in MVTec layout and has labelled test pictures, or ``None``."""
    folder = pictures.folder.resolve()
    if folder.parent.name != "train":
        return None
    found = folder.parent.parent
    return found if labelled_pictures(found.parent, found.name) else None


def picture_digests(paths: tuple[Path, ...]) -> tuple[str, ...]:
    """The first 16 hexadecimal digits of each file's SHA-256: enough to know a picture again."""
    return tuple(sha256_of_file(path)[:16] for path in paths)


def digest_of(paths: tuple[Path, ...]) -> str:
    """SHA-256 over the contents of files, in the order given; names do not count."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(sha256_of_file(path)))
    return digest.hexdigest()


def _is_class(folder: Path) -> bool:
    return (folder / "train" / GOOD).is_dir() or bool(_pictures(folder))


def _pictures(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted(path for path in folder.iterdir() if path.is_file() and is_image(path)))


def _mask_of(path: Path, folder: Path) -> Path | None:
    for name in (f"{path.stem}_mask", path.stem):
        for candidate in sorted(folder.glob(f"{glob.escape(name)}.*")):
            if is_image(candidate):
                return candidate
    return None


def _missing_class(data: Path, class_name: str) -> str:
    existing = find_classes(data)
    if existing:
        return f"{data} has no class {class_name}. It has: {', '.join(existing)}"
    if (data / "train" / GOOD).is_dir() or _pictures(data):
        return (
            f"{data} has no folder {class_name}, but holds pictures itself. Give the folder above "
            f"it: --data {data.parent} --cls {data.resolve().name}"
        )
    return f"{data} has no class {class_name}, nor any other (NAME/train/good with pictures)"
