"""What the table and the warnings say of a conversion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from patchline.export.fit import FittedModel
from patchline.export.making.conversion_report import (
    conversion_rows,
    conversion_warnings,
    time_row,
)
from patchline.export.precision.compare import Pairs
from patchline.export.precision.converted import Converted
from patchline.export.precision.form import Form
from patchline.export.precision.layer_names import check_layer_names
from patchline.export.precision.layers import layers
from patchline.runtime.contract import Conversion, Gate, load_manifest
from patchline.runtime.errors import ConfigurationError


@pytest.fixture
def converted(fitted: FittedModel, exported: Path) -> Converted:
    """Twenty pictures, of which each takes as long as in float32."""
    float32 = load_manifest(exported.with_suffix(".json"))
    gate = Gate(images=20, rank_correlation=0.9876, map_error=8.2e-4, verdict_changes=0.05)
    conversion = Conversion(quantization=None, gate=gate)
    manifest = float32.model_copy(update={"precision": "fp16", "conversion": conversion})
    zeros = np.zeros((20, 2))
    pairs = Pairs((exported,) * 20, zeros, zeros, zeros[..., None], np.ones((20, 2)))
    form = Form(fitted.detector)
    return Converted(manifest, float32, pairs, gate, form, form.external())


@pytest.mark.parametrize(
    ("ratio", "is_said"), [(0.9, False), (1.0, False), (1.04, False), (1.05, True), (1.24, True)]
)
def test_slower_is_said_from_five_percent_on(
    converted: Converted, ratio: float, is_said: bool
) -> None:
    times = np.stack([np.full(20, 100.0), np.full(20, 100.0 * ratio)], 1)
    slow = replace(converted, pairs=replace(converted.pairs, times_ms=times))
    said = [text for text in conversion_warnings(slow) if "slower" in text]
    assert len(said) == is_said
    if said:
        assert said[0].startswith(f"FP16 is slower than FP32 here: {ratio:.2f} x its time")
    assert time_row(slow)[1].startswith(f"FP16 takes {ratio:.2f} x FP32's time here")


@pytest.mark.parametrize(
    ("changes", "words"),
    [(0, "0 verdicts differ"), (1, "1 verdict differs"), (2, "2 verdicts differ")],
)
def test_the_row_of_figures(converted: Converted, changes: int, words: str) -> None:
    gate = converted.gate.model_copy(update={"verdict_changes": changes / 20})
    conversion = Conversion(quantization=None, gate=gate)
    rows = conversion_rows(converted.manifest.model_copy(update={"conversion": conversion}))
    assert rows[1] == (
        "against float32",
        "rank correlation 0.9876, 95 % of map values within 8.2e-04 of the threshold, "
        f"{words} (20 good pictures)",
    )


def test_pictures_left_out_are_counted(converted: Converted) -> None:
    few = replace(converted, pairs=replace(converted.pairs, left_out=1))
    assert any(
        text.startswith("1 of 21 pictures not compared") for text in conversion_warnings(few)
    )


def test_every_layer_of_a_graph_may_be_named_before_it_is_made(fitted: FittedModel) -> None:
    names = [layer.name for layer in layers(Form(fitted.detector).external())]
    assert "layer1.0.add" in names
    check_layer_names("resnet18", [*names, "first", "last", "auto", "node_add_96"])
    check_layer_names("no backbone", ["first", "auto"])  # which is said elsewhere
    for wrong, hint in (("layer1.0.ad", "layer1.0.add"), ("layer1.0.conv3", "layer1.0.conv2")):
        with pytest.raises(ConfigurationError, match=f"no layer {wrong!r} to keep in float"):
            check_layer_names("resnet18", [wrong])
        with pytest.raises(ConfigurationError, match=rf"mean {hint[:-1]}.*first, last, conv1, "):
            check_layer_names("resnet18", [wrong])
