"""What ``export-model`` says of a conversion to FP16 or INT8: rows of its table, and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from patchline.export.making.shared_graphs import Chart
from patchline.export.precision.converted import Converted, Judged
from patchline.export.precision.evidence import foreign_pictures
from patchline.export.precision.gate import FEW_PICTURES
from patchline.export.precision.sensitivity import LayerSensitivity
from patchline.export.precision.sensitivity_report import save_chart, sensitivity_table
from patchline.runtime.cli.command import stderr_console
from patchline.runtime.contract import Conversion, Gate, Manifest

SLOWER = 1.05
"""A converted model that takes this multiple of FP32's time is slower; less is chance."""


def show_sensitivity(chart: Chart, rows: Sequence[LayerSensitivity]) -> None:
    """Print the table on stderr, where a JSON result stays alone on stdout, and draw the chart.

    Args:
        chart: where to, and whose the figures are.
        rows: the figures.

    Raises:
        ConfigurationError: the chart's name ends in neither ``.svg`` nor ``.png``.
        WriteError: it cannot be written.
    """
    console = stderr_console()
    console.print(sensitivity_table(rows, chart.whose))
    save_chart(rows, chart.path, chart.whose)
    console.print(f"chart: {chart.path}", markup=False, soft_wrap=True)


def conversion_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """Rows of the table; none for a float32 model."""
    conversion = manifest.conversion
    if conversion is None:
        return []
    rows = [("precision", _precision(manifest, conversion)), ("against float32", _gate(conversion))]
    found = conversion.gate
    changes = [
        f"{what} AUROC {change:+.4f}"
        for what, change in (
            ("image", found.image_auroc_change),
            ("pixel", found.pixel_auroc_change),
        )
        if change is not None
    ]
    if changes:
        rows.append((f"{found.labelled_images} labelled pictures", ", ".join(changes)))
    return rows


def time_row(converted: Judged) -> tuple[str, str]:
    """How long an inference takes, beside the float32 model."""
    precision = converted.manifest.precision.upper()
    return "speed", (
        f"{precision} takes {converted.pairs.time_ratio:.2f} x FP32's time here (ONNX Runtime, CPU)"
    )


def conversion_warnings(converted: Judged) -> Iterator[str]:
    """What a user should know of a conversion that was let out."""
    if isinstance(converted, Converted):
        yield from converted.notes
    pairs, found, precision = converted.pairs, converted.gate, converted.manifest.precision.upper()
    if found.images < FEW_PICTURES:
        yield (
            f"the {precision} model was compared with float32 on {found.images} pictures, and "
            f"fewer than {FEW_PICTURES} tell little: give more good pictures"
        )
    if pairs.left_out:
        yield (
            f"{pairs.left_out} of {pairs.left_out + found.images} pictures not compared: without "
            "their own rows the bank has fewer rows than neighbours"
        )
    foreign = foreign_pictures(pairs, converted.float32.normal_scores)
    if foreign is not None:
        yield foreign
    if found.is_forced:
        yield f"written by --force in spite of the gate: {'; '.join(found.problems)}"
    if pairs.time_ratio >= SLOWER:
        yield (
            f"{precision} is slower than FP32 here: {pairs.time_ratio:.2f} x its time (ONNX "
            "Runtime, CPU). It is for TensorRT on a GPU; run FP32 on this processor"
        )


def _precision(manifest: Manifest, conversion: Conversion) -> str:
    bank = manifest.memory_bank
    text = manifest.precision + (f", memory bank {bank.precision}" if bank else "")
    quantization = conversion.quantization
    if quantization is None:
        return text
    kept, classes = ", ".join(quantization.float_layers), quantization.classes
    whose = f" of {', '.join(classes)}" if len(classes) > 1 else ""
    return (
        f"{text}, calibrated on {quantization.images} pictures{whose} ({quantization.method})"
        f"{f', in float: {kept}' if kept else ''}"
    )


def _gate(conversion: Conversion) -> str:
    found: Gate = conversion.gate
    changed = round(found.verdict_changes * (found.images + found.labelled_images))
    verdicts = "1 verdict differs" if changed == 1 else f"{changed} verdicts differ"
    text = (
        f"rank correlation {found.rank_correlation:.4f}, 95 % of map values within "
        f"{found.map_error:.1e} of the threshold, {verdicts} ({found.images} good pictures"
    )
    more = f", {found.labelled_images} labelled" if found.labelled_images else ""
    return f"{text}{more})"
