"""What a worker of an archive says of a part that fails, without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchline.runtime.archive import on_ray
from patchline.runtime.archive.on_ray import ActorScorer
from patchline.runtime.archive.scorer import Scorer
from patchline.runtime.errors import ClusterError, EngineError
from tests.runtime.tiny_model import write_tiny_model

from .given import make_job


class TaskError(Exception):
    """As Ray's: its first line says where it came up, and the cause is beside it."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("\x1b[36mray::MapWorker.submit()\x1b[39m (pid=1, ip=10.0.0.1)")
        self.cause = cause


@pytest.mark.parametrize(
    "error", [MemoryError("no more"), OSError("no more"), ValueError("no more")]
)
def test_any_exception_is_told_of_its_part(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise error

    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").touch()
    job = make_job(write_tiny_model(tmp_path), tmp_path / "images", tmp_path)
    monkeypatch.setattr(Scorer, "score", fail)
    (text,) = ActorScorer(job)({"part": ['{"number": 7, "paths": []}']})["result"]
    found = on_ray._from_text(text)
    assert isinstance(found, ClusterError)
    assert str(found) == f"part 7: {type(error).__name__}: no more"
    assert list(tmp_path.glob(".attempt-*")) == []  # nobody died


def test_what_an_error_of_rays_says() -> None:
    assert on_ray._reason(RuntimeError("the node died\n  at 12:00")) == "the node died"
    assert on_ray._reason(TaskError(EngineError("no GPU"))) == "EngineError: no GPU"
