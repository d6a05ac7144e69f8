"""Every figure of README has a committed file behind it, and the check sees where one has not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from patchline.benchmarks import figures, report
from patchline.benchmarks.figure_values import Computed, Limit, Results, value_of
from patchline.runtime.errors import ConfigurationError, DataError
from tests.commands import Caller, Finished

ROOT = Path(__file__).parents[2]

RESULTS: dict[str, Any] = {
    "rows": 2048,
    "graphs": {"model": {"median_ms": 31.2}, "the loop, slow": {"median_ms": 1996.2}},
    "same": "all 3",
    "cases": [
        {"neighbors": 1, "name": "a", "auroc": 0.5},
        {"neighbors": None, "name": "a", "auroc": 0.75},
        {"neighbors": None, "name": "b, by c/d", "auroc": 0.25},
    ],
}
TOML = """
version = "VERSION"
machine = "MACHINE"
[[sentence]]
text = "Measured on {cores} cores"
suite = "one"
values.cores = "/machine/cores"
[[stated]]
text = "(about 5 GB)"
why = "another's"
[[table]]
columns = ["what", "figure"]
[[table.row]]
cells = ["a frame, bank of {rows:,} rows", "{model:.0f} ms"]
suite = "one"
values.rows = "rows"
values.model = "graphs/model/median_ms"
[[table.row]]
cells = ["5 % of it", "{share:.1f} %, all the same"]
suite = "one"
values.share = { of = ["graphs/model/median_ms"], scale = 0.05 }
values.same = "same"
holds.same.equals = "all 3"
"""
README = """# A project

It is installed in a minute (about
5 GB), as `sleep 3 s` shows.

```
{"infer": 27.3, "text": "27 ms"}
```

Measured on CORES cores, in 2026.

| what | figure |
|---|---|
| a frame, bank of 2,048 rows | 31 ms |
| 5 % of it | 1.6 %, all the same |

The end.
"""


@pytest.fixture
def results(tmp_path: Path) -> Results:
    path = report.write_result("one", RESULTS, tmp_path)
    report.write_result("other", {"rows": 7}, tmp_path)
    return Results(path.parent, path.stem.split("--")[1])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one results file, its table in README, and a TOML between them."""
    root = tmp_path / "checkout"
    path = report.write_result("one", RESULTS, root / report.RESULTS)
    machine, cores = path.stem.split("--")[1], json.loads(path.read_text())["machine"]["cores"]
    toml = TOML.replace("VERSION", path.parent.name).replace("MACHINE", machine)
    (root / figures.FIGURES).write_text(toml)
    (root / figures.README).write_text(README.replace("CORES", str(cores)))
    return root


def found(checkout: Path) -> list[str]:
    text = (checkout / figures.README).read_text()
    return figures.problems(text, *figures.read_figures(checkout))


def edit(path: Path, old: str, new: str) -> None:
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


def test_readme_says_what_the_files_say() -> None:
    text = (ROOT / figures.README).read_text(encoding="utf-8")
    assert figures.problems(text, *figures.read_figures(ROOT)) == []


def test_every_results_file_behind_readme_is_of_one_machine_and_committed() -> None:
    read, results = figures.read_figures(ROOT)
    suites = {row.suite for table in read.table for row in table.row}
    assert len({results(suite)["machine"]["cpu"] for suite in suites}) == 1
    assert len(suites) >= 9


def test_a_checkout_where_all_is_well(checkout: Path) -> None:
    assert found(checkout) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("31 ms", "30 ms", [r"README lacks: \| a frame", r"no file says this: \| a frame"]),
        (
            "| 5 % of it",
            "| 6 % of it",
            [r"README lacks: \| 5", r"no file says this: \| 6"],
        ),
        ("| 5 % of it | 1.6 %, all the same |\n", "", [r"README lacks: \| 5 % of it"]),
        ("\n\nThe end", "\n| new | 3 ms |\n\nThe end", [r"no file says this: \| new \| 3 ms \|"]),
        ("The end.", "It takes 3 ms.", ["no file says this: .*It takes 3 ms"]),
        ("The end.", "It needs 20 % less.", ["no file says this: .*It needs 20 %"]),
        ("The end.", "12.5 \u00d7 faster.", ["no file says this: .*12.5"]),
        ("The end.", "| head | a |\n|---|---|\n| x | 3 s |", ["no file says this: .*3 s"]),
        ("Measured on", "Taken on", ["README lacks: Measured on"]),
        ("5 GB", "6 GB", [r"README lacks: \(about", "no file says this: "]),
    ],
)
def test_what_no_file_says_is_found(
    checkout: Path, old: str, new: str, expected: list[str]
) -> None:
    edit(checkout / figures.README, old, new)
    problems = found(checkout)
    assert len(problems) == len(expected)
    assert all(map(re.match, expected, problems)), problems


def test_rows_in_another_order_are_found(checkout: Path) -> None:
    readme = checkout / figures.README
    lines = readme.read_text().split("\n")
    at = lines.index("|---|---|")
    lines[at + 1], lines[at + 2] = lines[at + 2], lines[at + 1]
    readme.write_text("\n".join(lines))
    assert found(checkout) == ["the rows of README stand in another order, or twice"]


def test_a_row_that_is_there_twice_is_found(checkout: Path) -> None:
    row = "| 5 % of it | 1.6 %, all the same |"
    edit(checkout / figures.README, row, f"{row}\n{row}")
    assert found(checkout) == ["the rows of README stand in another order, or twice"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"{model:.0f} ms"', '"{model:.0f} ms of 40"', "figure 40 of its own"),
        ('"{model:.0f} ms"', '"-0.5 {model:.0f}"', "figure 0.5 of its own"),
        ("Measured on {cores}", "Measured on {cores} of 8", "figure 8 of its own"),
        ('"{model:.0f} ms"', '"{missing} ms"', "cannot be filled in: KeyError"),
        ('"{model:.0f} ms"', '"{model:d} ms"', "cannot be filled in: ValueError"),
        ('"{model:.0f} ms"', '"{model:.0f} ms", "more"', "are 3 cells, expected"),
        ('"graphs/model/median_ms"\n', '"graphs/module/median_ms"\n', "one has nothing at"),
        ('"all 3"', '"all 4"', "its words expect {'equals': 'all 4'}"),
        ("holds.same", "holds.other", "other is None, its words expect"),
        ("values.same", "value.same", "Extra inputs are not permitted"),
        ("[[stated]]", "[[stated]", "Expected"),
        ('["what", "figure"]', '["what", "ratio"]', "has 0 times the head"),
        ('suite = "one"\nvalues.rows', 'suite = "none"\nvalues.rows', "does not exist"),
    ],
)
def test_a_faulty_entry_is_refused(checkout: Path, old: str, new: str, message: str) -> None:
    edit(checkout / figures.FIGURES, old, new)
    with pytest.raises(ConfigurationError) as refused:
        found(checkout)
    assert message in str(refused.value)


def test_names_with_digits_are_no_figures(checkout: Path) -> None:
    text = '"{model:.0f} ms"', '"FP16, ResNet-18, p95, x86: {model:.0f} ms"'
    edit(checkout / figures.FIGURES, *text)
    edit(checkout / figures.README, "| 31 ms", "| FP16, ResNet-18, p95, x86: 31 ms")
    assert found(checkout) == []


def test_a_file_that_holds_no_schema_gives_no_figures(checkout: Path) -> None:
    (path,) = (checkout / report.RESULTS).rglob("*.json")
    edit(path, "31.2", "NaN")
    with pytest.raises(DataError, match="NaN is no strict JSON"):
        found(checkout)


def call(monkeypatch: Any, capsys: Any, *words: object) -> Finished:
    return Caller(monkeypatch, capsys)(figures, *words)


def test_smoke_figures(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints and exits 1 where README differs; with --write it mends the tables."""
    readme = checkout / figures.README
    right = readme.read_text()
    done = call(monkeypatch, capsys, "--root", checkout)
    assert (done.status, done.stderr) == (0, "")
    assert "| a frame, bank of 2,048 rows | 31 ms |\n" in done.stdout
    assert "Measured on " in done.stdout
    edit(readme, "31 ms", "30 ms")
    edit(readme, "| 5 % of it | 1.6 %, all the same |\n", "| gone | 3 ms |\n")
    wrong = readme.read_text()
    done = call(monkeypatch, capsys, "--root", checkout)
    assert done.status == 1
    assert done.stderr.count("warning: ") == 4
    assert readme.read_text() == wrong
    assert call(monkeypatch, capsys, "--root", checkout, "--write").status == 0
    assert readme.read_text() == right


def test_a_new_results_file_changes_readme(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (checkout / report.RESULTS).rglob("*.json")
    edit(path, "31.2", "25.6")
    assert call(monkeypatch, capsys, "--root", checkout, "--write").status == 0
    assert "| 26 ms |" in (checkout / figures.README).read_text()


def test_prose_is_never_written(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = checkout / figures.README
    edit(readme, "The end.", "It takes 3 ms.")
    before = readme.read_text()
    assert call(monkeypatch, capsys, "--root", checkout, "--write").status == 1
    assert readme.read_text() == before


def test_a_checkout_without_the_toml_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / figures.README, tmp_path)
    done = call(monkeypatch, capsys, "--root", tmp_path)
    assert done.status == 1
    assert "figures.toml: No such file" in done.sentence


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("rows", 2048),
        ("graphs/the loop, slow/median_ms", 1996.2),
        ("other:rows", 7),
        ("/suite", "one"),
        ("other:/suite", "other"),
        ("cases/[neighbors=1]/auroc", 0.5),
        ("cases/[neighbors=None,name=a]/auroc", 0.75),
        ("cases/[name=b, by c/d,neighbors=None]/auroc", 0.25),
        (Computed(of=["rows", "other:rows"], how="sum"), 2055),
        (Computed(of=["rows", "other:rows"], how="mean"), 1027.5),
        (Computed(of=["rows", "other:rows"], how="min"), 7),
        (Computed(of=["rows", "other:rows"], how="max"), 2048),
        (Computed(of=["rows", "other:rows"], how="difference"), 2041),
        (Computed(of=["other:rows", "rows"], how="ratio", scale=100), 100 * 7 / 2048),
        (Computed(of=["graphs/the loop, slow/median_ms"], digits=3), 2000),
        (Computed(of=["graphs/model/median_ms"], digits=1), 30),
        (Computed(of=[Computed(of=["rows"], scale=0.5), "other:rows"], how="difference"), 1017),
    ],
)
def test_values_by_hand(results: Results, spec: str | Computed, expected: object) -> None:
    assert value_of(spec, "one", results) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("row", "one has nothing at 'row'"),
        ("rows/x", "one has nothing at 'rows/x'"),
        ("none:rows", "does not exist"),
        ("cases/[name=a]/auroc", "2 elements are"),
        ("cases/[neighbors=9]/auroc", "0 elements are"),
        ("cases/[kk=9]/auroc", "one has nothing"),
        ("cases/0/auroc", "one has nothing"),
        (Computed(of=["same"]), "expected numbers, found"),
        (Computed(of=["rows", "rows"]), "expected 1 values"),
        (Computed(of=["rows"], how="ratio"), "expected 2 values"),
    ],
)
def test_values_that_are_not_there(results: Results, spec: str | Computed, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        value_of(spec, "one", results)


@pytest.mark.parametrize(
    ("limit", "yes", "no"),
    [
        (Limit(at_least=1), (1, 1.5), (0.99, "2", None)),
        (Limit(at_most=1), (1, -3), (1.01, "0", None)),
        (Limit(at_least=0, at_most=1), (0, 1), (-0.1, 1.1)),
        (Limit(equals="all 3"), ("all 3",), ("all 4", 3)),
        (Limit(equals=2), (2, 2.0), (3, "2")),
    ],
)
def test_limits(limit: Limit, yes: tuple[object, ...], no: tuple[object, ...]) -> None:
    assert all(limit.holds(value) for value in yes)
    assert not any(limit.holds(value) for value in no)
