"""``python -m patchline.benchmarks.threshold_simulation``: does the promise hold where it is known?

Scores are drawn from laws with light, bounded and heavy tails, so that the true quantile and the
true share above a threshold are known. Three things are counted: how often the 95 % interval
holds the true quantile, how many good frames reach the threshold on average, and what the plain
maximum-likelihood quantile would give instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy import stats

from patchline.benchmarks.report import write_result
from patchline.calibration.tail import NormalTail
from patchline.runtime.cli.command import run_command
from patchline.runtime.contract import Tail

LAWS: dict[str, Any] = {
    "uniform": stats.uniform(),
    "Weibull, shape 2": stats.weibull_min(2),
    "normal": stats.norm(),
    "Gumbel": stats.gumbel_r(),
    "gamma, shape 4": stats.gamma(4),
    "exponential": stats.expon(),
    "log-normal, sigma 0.5": stats.lognorm(0.5),
    "log-normal, sigma 1": stats.lognorm(1),
    "Student t, 4 degrees": stats.t(4),
    "Pareto, alpha 2": stats.pareto(2),
}
RATES = (0.05, 0.01, 0.001)


@dataclass(frozen=True)
class Outcome:
    """One law, sample size and rate, over many draws.

    Attributes:
        coverage: share of draws whose interval holds the true quantile.
        below: share of draws whose interval lies below it; ``above`` likewise.
        mean_rate: share of good frames at or above the threshold, on average.
        mean_rate_plug_in: the same for the quantile of the most likely law.
    """

    coverage: float
    below: float
    above: float
    mean_rate: float
    mean_rate_plug_in: float


def simulate(
    law: Any, images: int, rates: Sequence[float], draws: int, seed: int
) -> dict[float, Outcome]:
    """Draw ``draws`` samples of ``images`` scores and count, per rate."""
    generator = np.random.default_rng(seed)
    rows: dict[float, list[tuple[float, float, float, float]]] = {rate: [] for rate in rates}
    for _ in range(draws):
        scores = law.rvs(size=images, random_state=generator)
        tail = NormalTail(scores)
        fit = tail.fit()
        for rate in rates:
            low, high = tail.interval(rate)
            plug_in = _plug_in(fit, scores, rate)
            rows[rate].append((low, high, law.sf(tail.threshold(rate)), law.sf(plug_in)))
    return {rate: _outcome(np.array(found), law.isf(rate)) for rate, found in rows.items()}


def _plug_in(fit: Tail, scores: np.ndarray, rate: float) -> float:
    share = fit.exceedances / len(scores)
    if rate >= share:
        return float(np.quantile(scores, 1 - rate))
    return float(fit.start + stats.genpareto.isf(rate / share, fit.shape, scale=fit.scale))


def _outcome(found: np.ndarray, true: float) -> Outcome:
    below, above = found[:, 1] < true, found[:, 0] > true
    return Outcome(
        coverage=round(float((~below & ~above).mean()), 4),
        below=round(float(below.mean()), 4),
        above=round(float(above.mean()), 4),
        mean_rate=round(float(found[:, 2].mean()), 6),
        mean_rate_plug_in=round(float(found[:, 3].mean()), 6),
    )


def benchmark_threshold_simulation(
    images: Annotated[str, typer.Option(help="Numbers of good pictures.")] = "20,50,200,1000",
    draws: Annotated[int, typer.Option(min=2, help="Samples of each law and number.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
) -> None:
    """Draw scores from known laws and hold the thresholds against them."""
    rows = [
        {"law": name, "images": count, "rate": rate, **vars(outcome)}
        for count in (int(text) for text in images.split(","))
        for name, law in LAWS.items()
        for rate, outcome in simulate(law, count, RATES, draws, seed).items()
    ]
    path = write_result("threshold-simulation", {"draws": draws, "seed": seed, "cases": rows}, out)
    console = Console(highlight=False)
    console.print(_table(rows))
    console.print(f"written to {path}")


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="over all laws: lowest, median and highest")
    for column in ("images", "asked", "coverage", "mean rate %", "mean rate %, plug-in"):
        table.add_column(column)
    for count, rate in sorted({(row["images"], row["rate"]) for row in rows}):
        chosen = [row for row in rows if (row["images"], row["rate"]) == (count, rate)]
        table.add_row(
            str(count),
            f"{100 * rate:g} %",
            _spread([row["coverage"] for row in chosen]),
            _spread([100 * row["mean_rate"] for row in chosen]),
            _spread([100 * row["mean_rate_plug_in"] for row in chosen]),
        )
    return table


def _spread(values: list[float]) -> str:
    return " / ".join(f"{value:.3g}" for value in np.quantile(values, (0, 0.5, 1)))


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.threshold_simulation``."""
    run_command(benchmark_threshold_simulation)


if __name__ == "__main__":
    main()
