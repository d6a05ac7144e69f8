"""The peers' results as one Markdown page beside their files: a table for each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from patchline.benchmarks.peers.catalogue import NOTES
from patchline.benchmarks.schema import Result, check_file
from patchline.runtime.errors import DataError
from patchline.runtime.files import write_atomically

Row = Mapping[str, Any]
Cells = dict[str, dict[str, str]]
"""A table: by peer and column."""

_TIMES = "\N{MULTIPLICATION SIGN}"
_NAMES = {"resnet18": "ResNet-18", "wide_resnet50_2": "WideResNet-50"}


def page_path(folder: Path, machine: str) -> Path:
    """Where the page of a machine lies, given the folder of a version."""
    return folder / f"peers--{machine}.md"


def write_page(folder: Path, machine: str) -> Path:
    """Write the page of what has been measured on a machine; see :func:`page`."""
    path = page_path(folder, machine)
    write_atomically(path, page(folder, machine).encode())
    return path


def page(folder: Path, machine: str) -> str:
    """The page's text, from the files ``peers-PART--MACHINE.json`` of a folder.

    Raises:
        DataError: there is none, or one is not what the schema says.
    """
    parts = []
    for part, (title, words, table) in PARTS.items():
        path = folder / f"peers-{part}--{machine}.json"
        if path.is_file():
            document = check_file(path)
            parts.append(_part(title, words, table(document.results["rows"]), document, path))
    if not parts:
        raise DataError(f"{folder} has no peers-*--{machine}.json: the benchmark writes them")
    notes = [f"- **{name}**: {note}." for name, note in NOTES.items()]
    head = (
        "# Patchline beside its peers\n\n"
        "Written by `python -m patchline.benchmarks.peers` from the files beside it; how it was "
        "measured and what differs: [the benchmark's page](../../peers/README.md). The machine has "
        "2 noisy cores and no GPU: times are worth something beside each other only, within one "
        "table: the processors of such machines differ, as the line below a table says where it is "
        "known. In brackets: Patchline's value over the peer's, pair by pair, so that below 1 "
        "Patchline is better.\n\n"
    )
    return head + "\n".join(notes) + "\n\n" + "\n".join(parts)


def _part(title: str, words: str, cells: Cells, document: Result, path: Path) -> str:
    load = document.run.load_average_start if document.run else None
    started = f", load {load[0]:.2f} at the start" if load else ""
    lines = [f"## {title}", "", words, "", *_markdown(cells), ""]
    for failed in document.results["failed"]:
        setting = ", ".join(str(value) for name, value in failed.items() if name != "reason")
        lines += [f"Not measured: {setting}: {failed['reason']}", ""]
    sets = document.machine.instruction_sets
    computed = f", with {', '.join(sets)}" if sets else ""
    file = f"[{path.name}]({path.name}), {document.date[:10]}{started}{computed}"
    return "\n".join([*lines, file, ""])


def _markdown(cells: Cells) -> list[str]:
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    rows = [[peer, *(row.get(column, "") for column in columns)] for peer, row in cells.items()]
    head = ["", *columns]
    return [_line(head), "|" + "---|" * len(head), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(row: Row) -> str:
    found = row.get("patchline_over_peer")
    return f" ({found['median']:.2f} {_TIMES})" if found else ""


def _setting(row: Row) -> str:
    return f"{_NAMES.get(row['backbone'], row['backbone'])}, {row['bank_rows']:,} rows"


def _table(rows: Sequence[Row], cells_of: Callable[[Row], Mapping[str, str]]) -> Cells:
    table: Cells = {}
    for row in rows:
        table.setdefault(row["peer"], {}).update(cells_of(row))
    return table


def _latency(rows: Sequence[Row]) -> Cells:
    def cells(row: Row) -> dict[str, str]:
        kind = row.get("precision", "float32")
        less = "" if kind == "float32" else f", {kind}"
        return {_setting(row): f"{row['median_ms']:.1f} ms{_ratio(row)}{less}"}

    return _table(rows, cells)


def _memory(rows: Sequence[Row]) -> Cells:
    own = {_setting(row): row["peak_mib"] for row in rows if row["peer"] == "patchline"}

    def cells(row: Row) -> dict[str, str]:
        ours = own.get(_setting(row))
        is_other = ours is not None and row["peer"] != "patchline"
        ratio = f" ({ours / row['peak_mib']:.2f} {_TIMES})" if is_other and ours else ""
        return {
            _setting(row): f"{row['peak_mib']:.0f} MiB{ratio}",
            f"model file, {row['bank_rows']:,} rows": f"{row['model_mib']:.1f} MiB",
        }

    return _table(rows, cells)


def _coreset(rows: Sequence[Row]) -> Cells:
    def cells(row: Row) -> dict[str, str]:
        guess = f"; {row['picks_measured']:,} picks measured" if row["extrapolated"] else ""
        column = f"{row['picks']:,} of {row['rows']:,} rows"
        return {column: f"{row['median_s']:.1f} s{_ratio(row)}{guess}"}

    return _table(rows, cells)


def _fit(rows: Sequence[Row]) -> Cells:
    def cells(row: Row) -> dict[str, str]:
        what = f"{row['class_name']}, {100 * row['coreset_ratio']:g} %"
        return {
            f"{what}: time": f"{row['median_s']:.1f} s",
            f"{what}: peak memory": f"{row['peak_mib']:,.0f} MiB",
        }

    return _table(rows, cells)


def _install(rows: Sequence[Row]) -> Cells:
    return _table(
        rows,
        lambda row: {
            "import": f"{row['median_ms']:.0f} ms{_ratio(row)}",
            "installed": f"{row['installed_mib']:,.0f} MiB" if "installed_mib" in row else "",
            "without CUDA": (
                f"{row['without_cuda_mib']:,.0f} MiB" if "without_cuda_mib" in row else ""
            ),
        },
    )


def _accuracy(rows: Sequence[Row]) -> Cells:
    def cells(row: Row) -> dict[str, str]:
        what = f"{row['class_name']}, {100 * row['coreset_ratio']:g} %"
        return {
            what: f"{row['image_auroc']:.4f}, {row['pixel_auroc']:.4f}, {row['aupro']:.4f}",
        }

    return _table(rows, cells)


PARTS: dict[str, tuple[str, str, Callable[[Sequence[Row]], Cells]]] = {
    "latency": (
        "Latency of one frame",
        "A uint8 frame at model size in memory to image score and map, conversion included.",
        _latency,
    ),
    "memory": (
        "Memory of judging",
        "Largest resident set of a process that loads one model and judges ten frames.",
        _memory,
    ),
    "install": (
        "Before the first frame",
        "Imports in a fresh process, the interpreter's start included, and the whole environment.",
        _install,
    ),
    "coreset": (
        "Coreset",
        "Rows of bottle in memory to picked rows. Textbook loops beyond the time limit are "
        "extended along a line, which their cells say.",
        _coreset,
    ),
    "fit": (
        "Fit",
        "Picture files to a model on disk. Patchline's time includes a threshold from five folds "
        "and the check of the exported file, which the peers do not have.",
        _fit,
    ),
    "accuracy": (
        "Accuracy",
        "Image AUROC, pixel AUROC and AUPRO on all test pictures, by one evaluator.",
        _accuracy,
    ),
}
"""By part: title, what was measured, and the table."""
