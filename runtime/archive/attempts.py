"""How often a part was begun on a cluster, so that one that kills its worker is given up.

Ray runs the work of a dead worker again without end: a picture that the decoder crashes on would
keep a cluster busy for ever. Each attempt leaves an empty file in the target, which all nodes see.
"""

from __future__ import annotations

from pathlib import Path

from patchline.runtime.errors import ClusterError
from patchline.runtime.files import write_errors

MOST_ATTEMPTS = 5
"""So many workers may die with one part; nodes that fail are among them."""


def begin_attempt(out: Path, number: int) -> None:
    """Note that a part is begun.

    Raises:
        ClusterError: it was begun too often and never came to an end.
        WriteError: the target cannot be written.
    """
    before = len(list(out.glob(_name(number, "*"))))
    if before >= MOST_ATTEMPTS:
        raise ClusterError(
            f"part {number} is given up: {before} workers died while they scored it, for want of "
            "memory or of a picture that crashes them. Its pictures are in the listing of --out; "
            "score them in this process (without --ray) to see which"
        )
    with write_errors(out):
        (out / _name(number, str(before))).touch()


def forget_attempts(out: Path, number: int | None = None) -> None:
    """Forget the attempts at a part that came to an end, or those at all parts."""
    for file in out.glob(_name(number, "*")):
        file.unlink(missing_ok=True)


def _name(number: int | None, attempt: str) -> str:
    return f".attempt-{'*' if number is None else number}-{attempt}"
