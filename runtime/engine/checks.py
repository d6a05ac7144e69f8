"""What every engine checks before it trusts the files it was given."""

from __future__ import annotations

from pathlib import Path

from patchline.runtime.contract import Manifest
from patchline.runtime.errors import ManifestError
from patchline.runtime.graph import GraphManifest
from patchline.runtime.preprocess import RESIZE


def check_resize(manifest: Manifest | GraphManifest, beside: Path) -> None:
    """Refuse a model whose frames were resized by another rule than ours.

    Args:
        manifest: of the model, or of a graph without a bank.
        beside: where it was read, for the message.

    Raises:
        ManifestError: it was.
    """
    if manifest.preprocessing.resize != RESIZE:
        raise ManifestError(
            f"{beside}: preprocessing.resize is {manifest.preprocessing.resize!r}, and this "
            f"Patchline resizes by {RESIZE!r}. Export the model again"
        )
