"""A part that kills its workers is given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchline.runtime.archive.attempts import MOST_ATTEMPTS, begin_attempt, forget_attempts
from patchline.runtime.errors import ClusterError


def test_a_part_is_begun_so_often_and_no_more(tmp_path: Path) -> None:
    for _ in range(MOST_ATTEMPTS):
        begin_attempt(tmp_path, 3)
    with pytest.raises(ClusterError, match=f"part 3 is given up: {MOST_ATTEMPTS} workers died"):
        begin_attempt(tmp_path, 3)
    begin_attempt(tmp_path, 33)
    forget_attempts(tmp_path, 3)
    begin_attempt(tmp_path, 3)
    assert len(list(tmp_path.iterdir())) == 2
    forget_attempts(tmp_path)
    assert list(tmp_path.iterdir()) == []
