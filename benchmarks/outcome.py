"""What an evaluation found, as results files have it: metrics, false alarms, finds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from patchline.export.evaluation.result import Evaluation
from patchline.runtime.cli.command import print_warning


def outcome(evaluation: Evaluation) -> dict[str, Any]:
    """Metrics that there are (without masks none of pixels), and verdicts at the threshold."""
    found = asdict(evaluation.metrics).items()
    return {
        **{name: round(value, 5) for name, value in found if value is not None},
        "aupro_fpr_limit": evaluation.fpr_limit,
        "false_alarms": evaluation.false_alarms,
        "good": evaluation.count(defective=False),
        "found": evaluation.found,
        "defective": evaluation.count(defective=True),
    }


def warn_of(evaluation: Evaluation, name: str) -> None:
    """Say what kept a metric from being computed, on stderr."""
    for sentence in (*evaluation.problems, *evaluation.notes):
        print_warning(f"{name}: {sentence}")
