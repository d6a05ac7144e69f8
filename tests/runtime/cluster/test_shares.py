"""GPUs of an engine on a cluster: what is given, and what cannot be."""

from __future__ import annotations

import pytest

from patchline.runtime.cluster.shares import gpus_of_engine
from patchline.runtime.errors import ConfigurationError


@pytest.mark.parametrize(
    ("asked", "needing", "found"),
    [
        (None, None, 0.0),
        (None, "bottle.trt", 1.0),
        (0.5, "--provider cuda", 0.5),
        (0.0, None, 0.0),
        (2.0, None, 2.0),
    ],
)
def test_gpus_of_an_engine(asked: float | None, needing: str | None, found: float) -> None:
    assert gpus_of_engine(asked, needing) == found


@pytest.mark.parametrize("asked", [1.5, -0.5, float("nan"), float("inf")])
def test_a_number_that_ray_gives_to_nobody(asked: float) -> None:
    with pytest.raises(ConfigurationError, match="expected a share of one GPU"):
        gpus_of_engine(asked, None)


def test_an_engine_that_needs_a_gpu_and_gets_none() -> None:
    with pytest.raises(ConfigurationError, match=r"bottle\.trt needs a GPU, and --ray-gpus 0"):
        gpus_of_engine(0.0, "bottle.trt")


def test_a_gpu_that_would_be_idle() -> None:
    assert gpus_of_engine(None, None, "--provider cpu") == 0.0
    assert gpus_of_engine(0.0, None, "--provider cpu") == 0.0
    with pytest.raises(ConfigurationError, match=r"cpu uses no GPU, and --ray-gpus 0\.5"):
        gpus_of_engine(0.5, None, "--provider cpu")
