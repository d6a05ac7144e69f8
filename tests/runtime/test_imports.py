"""The device side carries nothing of the training side."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.programs import run_program

EVERYTHING = """
import importlib, pkgutil, sys
import numpy as np
import patchline.runtime

for module in pkgutil.walk_packages(patchline.runtime.__path__, "patchline.runtime."):
    importlib.import_module(module.name)

from pathlib import Path
from patchline.runtime.engine import open_engine

with open_engine(Path(sys.argv[1])) as engine:
    size = engine.manifest.model_size
    engine.infer(np.zeros((2, size.height, size.width, 3), np.uint8))

banned = ("torch", "torchvision", "timm", "onnx", "scipy", "sklearn")
print([name for name in banned if name in sys.modules])
print([n for n in sys.modules if n.startswith(("patchline.export", "patchline.calibration"))])
print(len([n for n in sys.modules if n.startswith("patchline.runtime.")]) > 20)
"""


def test_the_runtime_loads_neither_torch_nor_timm_nor_onnx(tiny_model: Path) -> None:
    done = run_program(
        [sys.executable, "-c", EVERYTHING, tiny_model], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "[]", "True"]
    assert done.stderr == ""


def test_importing_the_library_touches_neither_logging_nor_the_environment() -> None:
    code = (
        "import logging, os; before = dict(os.environ); "
        "import patchline.runtime.line.inspection, patchline.runtime.camera.open; "
        "print(logging.getLogger().handlers, set(os.environ) - set(before))"
    )
    done = run_program([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] set()"
