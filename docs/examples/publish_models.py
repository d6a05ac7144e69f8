"""Put the models of a line into a web folder, whole or not at all.

    python publish_models.py /srv/models/press3 models/bottle.onnx models/bottle.json

Files lie there under their digests, ``files/SHA256``, and never change; ``index.json`` names those
that make the release, and is replaced last. A device sees the former release or this one.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from model_index import FORMAT, File, check_files, check_together
from model_releases import sha256_of_file, to_disk

from patchline.runtime.errors import ModelError, PatchlineError


def publish(target: Path, models: list[Path]) -> Path:
    """Copy what is new, and then replace the index.

    Raises: ModelError: the files make no release that a device would take.
    """
    ordered = sorted(models, key=lambda path: path.name)
    files = tuple(File(path.name, sha256_of_file(path), path.stat().st_size) for path in ordered)
    try:
        check_files(files)
    except ValueError as error:
        raise ModelError(f"no device takes these files: {error}. Name them otherwise") from error
    check_together(models)
    (target / "files").mkdir(parents=True, exist_ok=True)
    for path, file in zip(ordered, files, strict=True):
        _store(path, target / "files" / file.sha256)
    to_disk(target / "files")
    text = json.dumps({FORMAT: 1, "files": [asdict(file) for file in files]}, indent=2) + "\n"
    draft = target / ".index.json.new"
    draft.write_text(text, encoding="utf-8")
    to_disk(draft)
    draft.replace(target / "index.json")
    to_disk(target)
    return target / "index.json"


def _store(path: Path, stored: Path) -> None:
    """Have a file under its digest; one that a power cut left in part is copied again."""
    if stored.is_file() and sha256_of_file(stored) == stored.name:
        return
    draft = stored.with_name(f".{stored.name}.new")
    shutil.copyfile(path, draft)
    if sha256_of_file(draft) != stored.name:
        raise ModelError(f"{path} was changed while it was read. Publish it again")
    to_disk(draft)
    draft.replace(stored)


def main() -> int:
    """The exit status."""
    if len(sys.argv) < 3:
        print(f"usage: {sys.argv[0]} WEB_FOLDER FILE...", file=sys.stderr)  # noqa: T201
        return 2
    try:
        print(publish(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]]))  # noqa: T201
    except (PatchlineError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
