"""pyarrow, for who has it: an optional package of the device side."""

from __future__ import annotations

from typing import Any

from patchline.runtime.errors import MissingExtraError


def import_pyarrow() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "score-archive writes Parquet with pyarrow, which is not installed. Install it with: "
            'pip install "patchline[archive]"'
        ) from error
    return pyarrow, pyarrow.parquet
