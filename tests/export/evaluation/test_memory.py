"""300 pictures of 256 pixels are evaluated in less than 1 GiB, whatever their labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.programs import run_program
from tests.runtime.tiny_model import make_manifest

from . import peak_memory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("good", "defective"), [(60, 240), (0, 300)])
def test_300_pictures_stay_below_1_gib(tmp_path: Path, good: int, defective: int) -> None:
    done = run_program(
        [sys.executable, peak_memory.__file__, str(tmp_path), str(good), str(defective)],
        input=make_manifest(model_size={"height": 256, "width": 256}).to_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert 0.5 < result["aupro"] < 1
    assert 0.5 < result["pixel_auroc"] < 1
    assert result["peak_bytes"] < 1 << 30
