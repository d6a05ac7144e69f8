"""The rows that a plan of a graph without a bank is built for: chosen, refused, and really used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.contract import manifest_path
from patchline.runtime.engine import build
from patchline.runtime.engine.build import Target, build_plan
from patchline.runtime.engine.compat import load_flavour
from patchline.runtime.engine.plans.bank_rows import (
    bank_shapes,
    default_rows,
    kept_options,
    with_bank_rows,
)
from patchline.runtime.engine.plans.record import BuildOptions, load_record
from patchline.runtime.errors import ConfigurationError, ModelError
from patchline.runtime.progress import SilentSteps

from .tiny_model import make_graph_manifest, make_manifest, write_tiny_graph

GRAPH = make_graph_manifest(neighbors=9)


def options(*rows: int) -> BuildOptions:
    return BuildOptions(bank_rows=rows)  # type: ignore[arg-type]


class TestChosen:
    def test_the_default_begins_with_as_many_groups_as_neighbours(self) -> None:
        assert default_rows(GRAPH) == (288, 2048, 8192)
        assert with_bank_rows(BuildOptions(), GRAPH).bank_rows == (288, 2048, 8192)

    @pytest.mark.parametrize(
        ("neighbors", "expected"),
        [(1, (32, 2048, 8192)), (100, (3200, 3200, 8192)), (300, (9600, 9600, 9600))],
    )
    def test_the_default_always_ascends(
        self, neighbors: int, expected: tuple[int, int, int]
    ) -> None:
        assert default_rows(make_graph_manifest(neighbors=neighbors)) == expected

    def test_what_is_asked_for_is_taken(self) -> None:
        asked = BuildOptions(batch=(1, 2, 4), bank_rows=(288, 288, 320))
        assert with_bank_rows(asked, GRAPH) == asked

    def test_a_model_with_a_bank_has_none(self) -> None:
        assert with_bank_rows(BuildOptions(tf32=True), make_manifest()) == BuildOptions(tf32=True)

    def test_an_older_plans_rows_are_kept_while_the_model_can_have_them(self) -> None:
        assert kept_options(options(320, 320, 640), GRAPH) == options(320, 320, 640)
        wider = make_graph_manifest(neighbors=20)
        assert kept_options(options(320, 320, 640), wider) == options(640, 2048, 8192)
        assert kept_options(options(320, 320, 640), make_manifest()) == BuildOptions()


class TestRefused:
    @pytest.mark.parametrize(
        "rows",
        [
            (256, 2048, 8192),
            (300, 2048, 8192),
            (288, 2047, 8192),
            (288, 2048, 8191),
            (2048, 288, 8192),
            (288, 8192, 2048),
        ],
        ids=["too few", "smallest", "usual", "largest", "turned", "fallen"],
    )
    def test_rows_that_cannot_be(self, rows: tuple[int, int, int]) -> None:
        with pytest.raises(ConfigurationError, match=r"multiples of 32 from 288 on") as error:
            with_bank_rows(options(*rows), GRAPH)
        assert ":".join(map(str, rows)) in str(error.value)

    def test_rows_for_a_model_that_holds_its_bank(self) -> None:
        with pytest.raises(ConfigurationError, match="holds its own memory bank"):
            with_bank_rows(options(288, 2048, 8192), make_manifest())


def test_every_input_of_the_bank_has_its_shapes() -> None:
    rows = (288, 2048, 8192)
    assert bank_shapes("memory_bank", (-1, 384), rows) == [(288, 384), (2048, 384), (8192, 384)]
    assert bank_shapes("bank_squares", (-1,), rows) == [(288,), (2048,), (8192,)]
    assert bank_shapes("bank_neighbors", (-1, 9), rows) == [(288, 9), (2048, 9), (8192, 9)]
    assert bank_shapes("bank_statistics", (3,), rows) is None
    assert bank_shapes("frames", (-1, 8, 8, 3), rows) is None


class TestBuilt:
    @pytest.fixture(autouse=True)
    def needs_tensorrt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("tensorrt_rtx_bindings")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    @pytest.fixture
    def shapes(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """What the profile was given, by input."""
        seen: dict[str, Any] = {}
        give = build._profile_shapes

        def watch(name: str, shape: tuple[int, ...], options: BuildOptions) -> Any:
            seen[name] = give(name, shape, options)
            return seen[name]

        monkeypatch.setattr(build, "_profile_shapes", watch)
        return seen

    @pytest.mark.parametrize("rows", [None, (32, 64, 96)])
    def test_the_record_says_what_was_really_used(
        self, tmp_path: Path, shapes: dict[str, Any], rows: tuple[int, int, int] | None
    ) -> None:
        plan, asked = tmp_path / "graph.trt", BuildOptions(bank_rows=rows)
        target = Target(load_flavour("tensorrt-rtx"), None, asked)
        record = build_plan(write_tiny_graph(tmp_path), plan, target, SilentSteps())
        used = rows or (32, 2048, 8192)
        assert record.options.bank_rows == used == load_record(plan).options.bank_rows
        assert shapes["memory_bank"] == [(count, 1) for count in used]
        assert shapes["bank_squares"] == [(count,) for count in used]
        assert shapes["bank_statistics"] is None
        assert shapes["frames"] == [(count, 32, 32, 3) for count in (1, 1, 8)]

    def test_rows_are_refused_before_anything_is_built(
        self, tiny_model: Path, tmp_path: Path
    ) -> None:
        plan = tmp_path / "out" / "lamp.trt"
        target = Target(load_flavour("tensorrt-rtx"), None, options(32, 64, 96))
        with pytest.raises(ConfigurationError, match="--bank-rows"):
            build_plan(tiny_model, plan, target, SilentSteps())
        assert not plan.parent.exists()

    def test_another_file_than_the_graphs(self, tmp_path: Path) -> None:
        graph = write_tiny_graph(tmp_path)
        graph.write_bytes(graph.read_bytes() + b" ")
        target = Target(load_flavour("tensorrt-rtx"), None, BuildOptions())
        with pytest.raises(ModelError, match=r"not the file that graph\.json was written for"):
            build_plan(graph, tmp_path / "graph.trt", target, SilentSteps())
        assert manifest_path(graph).is_file()
