"""What the demo found: verdicts of ``run-camera`` against the folders the pictures came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from patchline.runtime.errors import PatchlineError


@dataclass(frozen=True)
class DemoResult:
    """The figures of one demo run.

    Attributes:
        image_auroc: area under the ROC curve of the image scores, 0 to 1.
        defective: how many defective pictures were judged.
        found: how many of them were called anomalous.
        good: how many good pictures were judged.
        false_alarms: how many of them were called anomalous.
        median_ms: preprocessing and inference of a picture, median.
    """

    image_auroc: float
    defective: int
    found: int
    good: int
    false_alarms: int
    median_ms: float


def evaluate(lines: str, expected: Sequence[str]) -> DemoResult:
    """Compare the verdicts with the truth, which is the folder a picture lies in.

    Args:
        lines: the JSON lines of ``run-camera`` over a ``test`` folder.
        expected: the pictures in it, as ``chip/000.png``; good ones as ``good/000.png``.

    Raises:
        PatchlineError: a line is no verdict, or not every picture was judged once.
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    verdicts = [_verdict(line) for line in lines.splitlines() if line.strip()]
    judged = sorted(verdict["file"] for verdict in verdicts)
    if judged != sorted(expected):
        raise PatchlineError(
            f"run-camera judged {len(judged)} pictures, expected each of {len(expected)} once"
        )
    is_defective = np.array([not verdict["file"].startswith("good/") for verdict in verdicts])
    is_alarm = np.array([verdict["anomalous"] for verdict in verdicts], dtype=bool)
    times_ms = [verdict["ms"]["preprocess"] + verdict["ms"]["infer"] for verdict in verdicts]
    return DemoResult(
        image_auroc=float(roc_auc_score(is_defective, [item["score"] for item in verdicts])),
        defective=int(is_defective.sum()),
        found=int((is_defective & is_alarm).sum()),
        good=int((~is_defective).sum()),
        false_alarms=int((~is_defective & is_alarm).sum()),
        median_ms=float(np.median(times_ms)),
    )


def result_table(result: DemoResult, *, trained_on: int, backbone: str) -> Table:
    """The figures as a table for a terminal."""
    table = Table(title="What the demo found", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("good pictures fitted on", str(trained_on))
    table.add_row("image AUROC", f"{result.image_auroc:.3f}")
    table.add_row("defects found", f"{result.found}/{result.defective}")
    table.add_row("false alarms", f"{result.false_alarms}/{result.good}")
    table.add_row("median per frame", f"{result.median_ms:.1f} ms")
    table.add_row("backbone", backbone)
    return table


def tested_files(class_folder: Path) -> list[str]:
    """The test pictures of a class, relative to its ``test`` folder, with forward slashes."""
    test = class_folder / "test"
    return sorted(file.relative_to(test).as_posix() for file in test.glob("*/*.png"))


def _verdict(line: str) -> dict[str, Any]:
    try:
        verdict: Any = json.loads(line)
        verdict["file"], verdict["anomalous"], verdict["score"]
        verdict["ms"]["preprocess"], verdict["ms"]["infer"]
    except (ValueError, KeyError, TypeError) as error:
        raise PatchlineError(f"run-camera printed a line that is no verdict: {line!r}") from error
    return dict(verdict)
