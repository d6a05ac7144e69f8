"""``--store``: pictures of anomalous frames, and of some good ones, within a size and an age."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2

from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.decisions.event import Event, Notice
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.files import check_writable, write_errors
from patchline.runtime.outputs.documents import to_json, verdict_document
from patchline.runtime.outputs.overlay import annotate
from patchline.runtime.outputs.store_index import StoreIndex
from patchline.runtime.preprocess import to_bgr8
from patchline.runtime.verdict import JudgedFrame

MOST_DELETED_AT_ONCE = 100
"""Records that are deleted for one frame: a limit that was lowered never stalls the store."""

_FORMATS = ("jpg", "png")
_JPEG_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 92)


@dataclass(frozen=True)
class StoreSettings:
    """What is kept, and for how long.

    Attributes:
        good_every: every so many good frames of a camera, one is kept; 0 for none.
        most_bytes: of all files together, at least 1.
        most_days: or ``None``; more than 0.
        picture_format: ``jpg``, or ``png`` for exactly the pixels that were judged.
        has_raw: whether the picture itself is kept.
        has_annotated: whether the picture with its heat map is kept.

    Raises:
        ConfigurationError: outside these ranges, or no picture at all.
    """

    good_every: int = 0
    most_bytes: int = 10 << 30
    most_days: float | None = None
    picture_format: str = "jpg"
    has_raw: bool = True
    has_annotated: bool = False

    def __post_init__(self) -> None:
        if self.good_every < 0 or self.most_bytes < 1:
            raise ConfigurationError(
                f"the image store keeps every {self.good_every}th good frame in {self.most_bytes} "
                "bytes, expected at least 0 and at least 1"
            )
        if self.most_days is not None and not 0 < self.most_days <= 36_500:
            raise ConfigurationError(
                f"the image store keeps pictures for {self.most_days} days, expected more than 0"
            )
        if self.picture_format not in _FORMATS or not (self.has_raw or self.has_annotated):
            raise ConfigurationError(
                f"the image store has the format {self.picture_format!r}, expected one of "
                f"{_FORMATS}, raw or annotated or both"
            )


class ImageStore:
    """Writes ``CAMERA/YYYY-MM-DD/HHMMSS_mmm_FRAME_SCORE[_good].jpg`` with a ``.json`` beside it.

    Each file is whole or not there. The folder is walked once, at the first frame; from then on
    the oldest records go as new ones come. Only files of this form are ever deleted.

    Args:
        folder: made if need be; not to be shared with another process.
        settings: what is kept.
        clock: for the age.

    Raises:
        WriteError: nothing can be written there.
    """

    def __init__(
        self, folder: Path, settings: StoreSettings | None = None, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.name = f"the image store {folder}"
        self._folder = folder
        self._settings = settings or StoreSettings()
        self._clock = clock
        self._index: StoreIndex | None = None
        self._good_frames: dict[str, int] = {}
        check_writable(folder)

    def write(self, judged: JudgedFrame) -> None:
        """Keep a frame if it is anomalous, or the turn of a good one; and let old ones go.

        Raises:
            WriteError: the disk is full, or the like.
        """
        if judged.verdict.anomalous or self._is_turn_of_good(judged.verdict.camera):
            self._keep(judged)
        else:
            with write_errors(self._folder):
                self._make_room(0)

    def notify(self, notice: Notice) -> None:
        """Keep the picture of an event, where the frame itself was lost for want of time."""
        if isinstance(notice, Event) and notice.peak is not None and notice.peak.verdict.anomalous:
            self._keep(notice.peak)

    def close(self) -> None:
        """Every file is complete already."""

    def _is_turn_of_good(self, camera: str) -> bool:
        every = self._settings.good_every
        self._good_frames[camera] = count = self._good_frames.get(camera, 0) + 1
        return every > 0 and count % every == 0

    def _keep(self, judged: JudgedFrame) -> None:
        stem = record_stem(judged)
        with write_errors(self._folder):
            if stem in self._opened():
                return
            files = self._files(judged)
            size = sum(len(content) for content in files.values())
            if size > self._settings.most_bytes:
                raise WriteError(
                    f"{self.name} may hold {self._settings.most_bytes} bytes, and one frame takes "
                    f"{size}. Choose a larger --store-size"
                )
            self._make_room(size)
            for suffix, content in files.items():
                _write(self._folder / f"{stem}{suffix}", content)
            self._opened().add(stem, size)

    def _opened(self) -> StoreIndex:
        if self._index is None:
            self._index = StoreIndex(self._folder)
        return self._index

    def _make_room(self, size: int) -> None:
        index = self._opened()
        for _ in range(MOST_DELETED_AT_ONCE):
            is_full = len(index) and index.total_bytes + size > self._settings.most_bytes
            if not is_full and not self._is_too_old(index):
                return
            index.delete_oldest()

    def _is_too_old(self, index: StoreIndex) -> bool:
        oldest, days = index.oldest(), self._settings.most_days
        if days is None or oldest is None:
            return False
        return self._clock.now().replace(tzinfo=None) - oldest > timedelta(days=days)

    def _files(self, judged: JudgedFrame) -> dict[str, bytes]:
        """Contents by the ending of their names; the sidecar is last, it says that all is there."""
        kind = self._settings.picture_format
        files: dict[str, bytes] = {}
        if self._settings.has_raw:
            files[f".{kind}"] = _encode(_raw(judged.captured.image, kind), kind)
        if self._settings.has_annotated:
            files[f".annotated.{kind}"] = _encode(annotate(judged), kind)
        height, width = judged.captured.image.shape[:2]
        document = {**verdict_document(judged.verdict), "width": width, "height": height}
        files[".json"] = to_json(document).encode() + b"\n"
        return files


def record_stem(judged: JudgedFrame) -> str:
    """Path of a frame's files in a store, without their endings."""
    verdict = judged.verdict
    good = "" if verdict.anomalous else "_good"
    time = f"{verdict.time:%Y-%m-%d/%H%M%S}_{verdict.time.microsecond // 1000:03d}"
    return f"{verdict.camera}/{time}_{verdict.frame:06d}_{verdict.score:.3f}{good}"


def _raw(image: Any, kind: str) -> Any:
    is_kept = kind == "png" and (image.ndim == 2 or image.shape[2] in (1, 3, 4))
    return image if is_kept else to_bgr8(image)


def _encode(picture: Any, kind: str) -> bytes:
    try:
        is_encoded, content = cv2.imencode(
            f".{kind}", picture, _JPEG_QUALITY if kind == "jpg" else ()
        )
    except cv2.error as error:
        raise WriteError(f"a frame cannot be stored as {kind}: OpenCV says {error.err}") from error
    if not is_encoded:
        raise WriteError(f"a frame cannot be stored: this OpenCV cannot write {kind} files")
    return content.tobytes()


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_bytes(content)
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
