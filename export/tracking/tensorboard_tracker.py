"""TensorBoard: files in a folder of their own for each run, and nothing beyond this machine."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from patchline.export.tracking.backend import Opening
from patchline.export.tracking.base import Pictures, Status
from patchline.export.tracking.missing import missing_track_extra
from patchline.export.tracking.settings import TrackSettings
from patchline.runtime.files import check_writable

NAME = "TensorBoard"


def prepare_tensorboard(settings: TrackSettings, name: str) -> Opening:
    """Make the run's folder, ``FOLDER/PROJECT/NAME-DATE-TIME``.

    Raises:
        MissingExtraError: tensorboard is not installed.
        WriteError: the folder cannot be written.
    """
    writer = import_summary_writer()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = settings.folder / _file_name(settings.project) / f"{_file_name(name)}-{stamp}"
    check_writable(folder)
    return Opening(NAME, lambda: TensorBoardBackend(writer(str(folder))))


def import_summary_writer() -> Any:
    """PyTorch's writer of TensorBoard's files.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise missing_track_extra("tensorboard") from error
    return SummaryWriter


class TensorBoardBackend:
    """One run.

    Args:
        writer: PyTorch's ``SummaryWriter`` of the run's folder.
    """

    rescue = ""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._texts: dict[str, dict[str, Any]] = {"config": {}, "summary": {}}

    def log(self, values: dict[str, float], step: int) -> None:
        """Write scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step=step)

    def images(self, name: str, pictures: Pictures, step: int) -> None:
        """Write each picture as ``NAME/CAPTION``."""
        for caption, picture in pictures.items():
            self._writer.add_image(
                f"{name}/{caption}", picture, global_step=step, dataformats="HWC"
            )

    def config(self, values: dict[str, Any]) -> None:
        """Write all settings so far as one text."""
        self._text("config", values)

    def model(self, path: Path, metadata: dict[str, Any]) -> None:
        """Write where the model lies, and what is known of it; the file stays where it is."""
        self._writer.add_text(f"model/{path.name}", _block({"path": str(path), **metadata}))

    def summary(self, values: dict[str, Any]) -> None:
        """Write all results so far as one text."""
        self._text("summary", values)

    def finish(self, status: Status) -> None:
        """Write the status and close the files."""
        self.summary({"status": status})
        self._writer.close()

    def _text(self, name: str, values: dict[str, Any]) -> None:
        self._texts[name].update(values)
        self._writer.add_text(name, _block(self._texts[name]))


def _block(values: dict[str, Any]) -> str:
    # Indented by four, Markdown shows it as it stands.
    lines = json.dumps(values, indent=2, ensure_ascii=False).splitlines()
    return "\n".join(f"    {line}" for line in lines)


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "run"
