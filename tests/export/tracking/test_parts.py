"""The parts of a tracker: which numbers are kept, and what becomes of settings."""

from __future__ import annotations

import enum
import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from patchline.export.tracking import TrackSettings
from patchline.export.tracking.plain import plain
from patchline.export.tracking.thinning import Thinning


def test_each_name_is_thinned_for_itself() -> None:
    thinning = Thinning(10)
    assert thinning.keep({"loss": 1.0}, 3) == {"loss": 1.0}
    assert thinning.keep({"loss": 2.0, "fit_s": 5.0}, 4) == {"fit_s": 5.0}
    assert thinning.keep({"loss": 3.0}, 12) == {}
    assert thinning.keep({"loss": 4.0}, 13) == {"loss": 4.0}
    assert thinning.rest() == []


def test_metrics_are_never_thinned() -> None:
    thinning = Thinning(1000)
    assert [thinning.keep({"metrics/a/aupro": 0.1}, step) != {} for step in range(3)] == [True] * 3


def test_what_was_left_out_last_is_the_rest() -> None:
    thinning = Thinning(100)
    thinning.keep({"loss": 1.0, "lr": 0.1}, 0)
    thinning.keep({"loss": 2.0, "lr": 0.2}, 1)
    thinning.keep({"loss": 3.0}, 2)
    assert thinning.rest() == [(1, {"lr": 0.2}), (2, {"loss": 3.0})]
    assert thinning.rest() == []


def test_steps_that_begin_anew_are_kept() -> None:
    thinning = Thinning(10)
    thinning.keep({"loss": 1.0}, 500)
    assert thinning.keep({"loss": 2.0}, 400) == {"loss": 2.0}


class _Color(enum.Enum):
    RED = "red"


class _Model(BaseModel):
    size: tuple[int, int] = (2, 3)
    path: Path = Path("a/b")


def test_settings_become_what_json_knows() -> None:
    found = plain(
        {
            "model": _Model(),
            "color": _Color.RED,
            "array": np.arange(3),
            "number": np.float32(0.5),
            "is": np.bool_(True),
            "none": None,
            3: {"b"},
        }
    )
    assert found == {
        "model": {"size": [2, 3], "path": "a/b"},
        "color": "red",
        "array": [0, 1, 2],
        "number": 0.5,
        "is": True,
        "none": None,
        "3": ["b"],
    }
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("track", "mlflow"),
        ("project", ""),
        ("log_every", 0),
        ("tags", ("a" * 65,)),
        ("finish_timeout_s", 0.5),
        ("entety", "me"),
    ],
)
def test_settings_that_cannot_be_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        TrackSettings.model_validate({field: value})


def test_the_default_tracks_nothing() -> None:
    assert TrackSettings().track == "none"
