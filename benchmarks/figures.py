"""``python -m patchline.benchmarks.figures``: what README says, computed from the results files.

``benchmarks/figures.toml`` has a row for every row of README's tables: templates of its cells, and
where their values lie. ``--write`` puts the computed rows into README.
"""

from __future__ import annotations

import re
import string
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field, ValidationError

from patchline.benchmarks.figure_values import Computed, Limit, Results, Strict, value_of
from patchline.benchmarks.report import RESULTS
from patchline.runtime.cli.command import EXIT_ERROR, print_warning, run_command
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.files import write_atomically

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

README, FIGURES = Path("README.md"), Path("benchmarks/figures.toml")

_FIGURE = re.compile(r"(?<!\w)(?<![A-Za-z]-)\d[\d.,]*")
"""The digits of a name (FP16, ResNet-18, p95) are none."""

_MEASURED = re.compile(
    r"(?<![\w.-])\d[\d.,]*\s?(?:[mµn]?s\b|seconds|minutes|fps\b|\u00d7|%|[kMG]i?B\b|times\b)"
)
"""What looks like a measurement in prose: a figure with a unit of time, memory or share."""


class Filled(Strict):
    """Templates as of :meth:`str.format`, and what fills them.

    Attributes:
        suite: the results file.
        values: by name, as :func:`value_of` takes them.
        holds: by name of a value: what the words beside it say of it.
    """

    suite: str
    values: dict[str, str | Computed] = Field(min_length=1)
    holds: dict[str, Limit] = Field(default_factory=dict)


class Sentence(Filled):
    """Words of README's prose that have figures."""

    text: str


class Row(Filled):
    """A row of a table, with a template for each cell. The first cell says what is measured, and
    figures of its own may stand there ("1 % bank").
    """

    cells: list[str] = Field(min_length=2)


class Table(Strict):
    """A table of README, found by its head."""

    columns: list[str] = Field(min_length=2)
    row: list[Row] = Field(min_length=1)


class Stated(Strict):
    """A figure of README's prose that no benchmark measures, and why."""

    text: str
    why: str


class Figures(Strict):
    """``benchmarks/figures.toml``: which results, and what is made of them."""

    version: str
    machine: str
    table: list[Table] = Field(min_length=1)
    sentence: list[Sentence] = Field(default_factory=list)
    stated: list[Stated] = Field(default_factory=list)


def read_figures(root: Path) -> tuple[Figures, Results]:
    """Read ``benchmarks/figures.toml`` of a checkout.

    Raises:
        ConfigurationError: it is not TOML, or not of this form.
    """
    try:
        found = Figures.model_validate(tomllib.loads((root / FIGURES).read_text(encoding="utf-8")))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{FIGURES}: {error}") from error
    return found, Results(root / RESULTS / found.version, found.machine)


def render(entry: Row | Sentence, results: Results) -> list[str]:
    """The cells of a row, or the one text of a sentence.

    Raises:
        ConfigurationError: a value is not in the file, a template has a figure of its own, or the
            words do not hold.
        DataError: a file is not what the schema says.
    """
    templates = entry.cells if isinstance(entry, Row) else [entry.text]
    values = {name: value_of(spec, entry.suite, results) for name, spec in entry.values.items()}
    for name, limit in entry.holds.items():
        if name not in values or not limit.holds(values[name]):
            expected = limit.model_dump(exclude_none=True)
            raise ConfigurationError(
                f"{templates}: {name} is {values.get(name)}, its words expect {expected}"
            )
    for template in templates[1:] or templates:
        _refuse_figures(template)
    try:
        return [template.format(**values) for template in templates]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ConfigurationError(f"{templates} cannot be filled in: {error!r}") from error


def _refuse_figures(template: str) -> None:
    for literal, *_ in string.Formatter().parse(template):
        if found := _FIGURE.search(literal):
            raise ConfigurationError(
                f"{template!r} has the figure {found[0]} of its own; let a value give it"
            )


def table_lines(table: Table, results: Results) -> list[str]:
    """A table in Markdown.

    Raises:
        ConfigurationError: as :func:`render`; or a row has fewer or more cells than the head.
    """
    rows = [render(row, results) for row in table.row]
    for cells in rows:
        if len(cells) != len(table.columns):
            raise ConfigurationError(f"{cells} are {len(cells)} cells, expected {table.columns}")
    lines = [f"| {' | '.join(cells)} |" for cells in (table.columns, *rows)]
    return [lines[0], "|" + "---|" * len(table.columns), *lines[1:]]


def with_tables(text: str, figures: Figures, results: Results) -> str:
    """README's text with its tables as they should be.

    Raises:
        ConfigurationError: as :func:`table_lines`; or a table's head is not there exactly once.
    """
    for table in figures.table:
        lines, right = text.split("\n"), table_lines(table, results)
        if (times := lines.count(right[0])) != 1:
            raise ConfigurationError(f"{README} has {times} times the head {right[0]}, expected 1")
        first = last = lines.index(right[0])
        while last < len(lines) and lines[last].startswith("|"):
            last += 1
        text = "\n".join([*lines[:first], *right, *lines[last:]])
    return text


def problems(text: str, figures: Figures, results: Results) -> list[str]:
    """What README says otherwise than the files, in sentences; empty where all is well.

    Raises:
        ConfigurationError: as :func:`with_tables`.
    """
    there, right = text.split("\n"), with_tables(text, figures, results).split("\n")
    found = [f"README lacks: {line}" for line in right if line not in there]
    found += [f"no file says this: {line}" for line in there if line not in right]
    if not found and there != right:
        found.append("the rows of README stand in another order, or twice")
    sentences = [render(sentence, results)[0] for sentence in figures.sentence]
    stated = [one.text for one in figures.stated]
    prose = _prose(text, figures)
    for words in (*sentences, *stated):
        if words not in prose:
            found.append(f"README lacks: {words}")
        prose = prose.replace(words, "[...]")
    measured = _MEASURED.finditer(prose)
    return found + [f"no file says this: {_around(prose, match)}" for match in measured]


def _prose(text: str, figures: Figures) -> str:
    """README without blocks of code, words of code and the tables, its spaces made one."""
    heads = {f"| {' | '.join(table.columns)} |" for table in figures.table}
    lines, is_table = [], False
    for line in re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).split("\n"):
        is_table = line in heads or (is_table and line.startswith("|"))
        if not is_table:
            lines.append(re.sub(r"`[^`]*`", "", line))
    return " ".join(" ".join(lines).split())


def _around(prose: str, match: re.Match[str]) -> str:
    return prose[max(0, match.start() - 40) : match.end() + 20]


def show_figures(
    write: Annotated[bool, typer.Option("--write", help="Put the tables into README.")] = False,
    root: Annotated[Path, typer.Option(help="Root of the checkout.")] = Path(),
) -> None:
    """Print README's tables as the results files have them; exit 1 where README says otherwise."""
    figures, results = read_figures(root)
    text = (root / README).read_text(encoding="utf-8")
    for table in figures.table:
        typer.echo("\n".join([*table_lines(table, results), ""]))
    for sentence in figures.sentence:
        typer.echo(render(sentence, results)[0])
    if write:
        text = with_tables(text, figures, results)
        write_atomically(root / README, text.encode())
    wrong = problems(text, figures, results)
    for problem in wrong:
        print_warning(problem)
    if wrong:
        raise typer.Exit(EXIT_ERROR)


def main() -> None:
    """Entry point of ``python -m patchline.benchmarks.figures``."""
    run_command(show_figures)


if __name__ == "__main__":
    main()
