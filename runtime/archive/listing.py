"""The pictures of an archive, each with what tells whether its file has changed (issue 9)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from patchline.runtime.camera.pictures import list_matching_pictures, list_pictures
from patchline.runtime.camera.wildcards import has_wildcards
from patchline.runtime.errors import SourceOpenError

_UNKNOWN = 0  # size and time of a link that leads nowhere: it is listed, and unreadable later


@dataclass(frozen=True, slots=True)
class ListedPicture:
    """One picture file as it was when the archive was listed.

    Attributes:
        path: relative to the archive's root, with ``/``; bytes that are no UTF-8 are written
            as ``\\xHH``.
        size_bytes: of the file.
        mtime_ns: when it was last written, in nanoseconds since 1970.
    """

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Archive:
    """The pictures below a folder, or those that a pattern names.

    Attributes:
        root: the folder, or the one in front of the first wildcard.
        pictures: at least one, in natural order of their paths.
    """

    root: Path
    pictures: tuple[ListedPicture, ...]


def list_archive(images: Path) -> Archive:
    """List a folder with all below it, or what a pattern such as ``parts/**/*.png`` names.

    Raises:
        SourceOpenError: there is no such folder, no picture, or a folder cannot be listed.
    """
    if images.is_dir():
        return _archive(images, list_pictures(images))
    if images.is_file():
        return _archive(images.parent, [images])
    if not has_wildcards(str(images)):
        raise SourceOpenError(
            f"{images} does not exist. Give --images a folder of pictures, or a pattern in quotes: "
            "'parts/**/*.png'"
        )
    root, files = list_matching_pictures(str(images))
    return _archive(root, files)


def listing_digest(pictures: Iterable[ListedPicture]) -> str:
    """SHA-256 over paths, sizes and times, in the order given."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.path}\0{picture.size_bytes}\0{picture.mtime_ns}\n".encode())
    return digest.hexdigest()


def _archive(root: Path, files: Iterable[Path]) -> Archive:
    return Archive(root, tuple(_listed(root, file) for file in files))


def _listed(root: Path, file: Path) -> ListedPicture:
    name = file.relative_to(root).as_posix()
    path = name.encode("utf-8", "backslashreplace").decode()  # Parquet's strings are UTF-8
    try:
        found = file.stat()
    except OSError:
        return ListedPicture(path, _UNKNOWN, _UNKNOWN)
    return ListedPicture(path, found.st_size, found.st_mtime_ns)
