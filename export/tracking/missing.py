"""The error that stands for a tracker's library that is not installed."""

from __future__ import annotations

from patchline.runtime.errors import MissingExtraError


def missing_track_extra(library: str) -> MissingExtraError:
    """One sentence with the exact install command."""
    return MissingExtraError(
        f'{library} is not installed. Install it with: pip install "patchline[track]"'
    )
