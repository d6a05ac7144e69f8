"""The manifest of a graph without a bank: what it holds, is compared in, and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patchline.runtime.contract import Manifest, OnnxFile
from patchline.runtime.errors import ManifestError
from patchline.runtime.graph import (
    BANK_NEIGHBORS,
    BANK_SQUARES,
    BANK_STATISTICS,
    MEMORY_BANK,
    GraphManifest,
    bank_inputs,
    differing_fields,
    graph_of,
    load_any_manifest,
    parse_any_manifest,
)

from .tiny_model import make_graph_manifest, make_manifest

FILE = OnnxFile(file="graph.onnx", sha256="a" * 64)


class TestFile:
    def test_it_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        manifest = make_graph_manifest(onnx=FILE)
        manifest.save(tmp_path / "graph.json")
        assert load_any_manifest(tmp_path / "graph.json") == manifest

    def test_a_whole_models_is_told_apart(self, tmp_path: Path) -> None:
        make_manifest().save(tmp_path / "lamp.json")
        assert load_any_manifest(tmp_path / "lamp.json") == make_manifest()

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match=r"graph\.json is missing"):
            load_any_manifest(tmp_path / "graph.json")

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "graph.json").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ManifestError, match=r"graph\.json cannot be read"):
            load_any_manifest(tmp_path / "graph.json")

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"graph_version": 2}, r"here .*graph_version.*newer Patchline, upgrade"),
            ({"dimension": 0}, "dimension"),
            ({"dimension": "384"}, "dimension"),
            ({"neighbors": None}, "neighbors"),
            ({"surprise": 1}, "surprise"),
            ({"precision": "fp8"}, "precision"),
            ({"onnx": {"file": "graph.onnx", "sha256": "short"}}, r"onnx\.sha256"),
            ({"backbone": {"name": "resnet18"}}, r"backbone\.weights_sha256"),
        ],
    )
    def test_every_wrong_field_is_named(self, change: dict[str, Any], says: str) -> None:
        document = json.loads(make_graph_manifest(onnx=FILE).to_json()) | change
        with pytest.raises(ManifestError, match=says):
            parse_any_manifest(json.dumps(document), "here")

    @pytest.mark.parametrize("name", sorted(GraphManifest.model_fields.keys() - {"kind"}))
    def test_every_missing_field_is_named(self, name: str) -> None:
        document = json.loads(make_graph_manifest(onnx=FILE).to_json())
        del document[name]
        if name in ("graph_version", "bank_precision"):  # have defaults  # the first one
            assert isinstance(parse_any_manifest(json.dumps(document), "here"), GraphManifest)
            return
        with pytest.raises(ManifestError, match=rf"here is not a valid manifest: {name}"):
            parse_any_manifest(json.dumps(document), "here")

    @pytest.mark.parametrize("text", ["", "[1, 2]", "null", '{"kind": "graph"', "7"])
    def test_what_is_no_manifest_at_all(self, text: str) -> None:
        with pytest.raises(ManifestError, match=r"^here"):
            parse_any_manifest(text, "here")


class TestComparison:
    def test_products_on_one_backbone_ask_for_the_same_graph(self) -> None:
        one = make_manifest()
        other = make_manifest(
            **{"class": "bulb"},
            memory_bank=one.memory_bank.model_copy(update={"rows": 500, "seed": 7}),
            distance_statistics={"mean": 2.0, "std": 1.0},
            versions={"patchline": "0.2.0"},
        )
        assert differing_fields(graph_of(one), graph_of(other)) == []

    def test_where_the_weights_came_from_and_the_file_do_not_count(self) -> None:
        graph = make_graph_manifest()
        backbone = graph.backbone.model_copy(update={"weights_source": "elsewhere"})
        other = graph.model_copy(update={"backbone": backbone, "onnx": FILE})
        assert differing_fields(graph, other) == []

    @pytest.mark.parametrize(("change", "says"), [
        ({"score": "distance"}, "score: brightness, not distance"),
        ({"precision": "fp16"}, "precision: fp32, not fp16"),
        ({"dimension": 2}, "dimension: 1, not 2"),
        ({"neighbors": 3}, "neighbors: 1, not 3"),
    ])  # fmt: skip
    def test_each_field_is_named_with_both_values(self, change: dict[str, Any], says: str) -> None:
        other = make_graph_manifest(**change)
        assert differing_fields(make_graph_manifest(), other) == [says]

    @pytest.mark.parametrize(
        ("section", "change", "says"),
        [
            ("model_size", {"width": 64}, "model_size: 32 x 32, not 32 x 64"),
            ("preprocessing", {"resize": "other"}, "preprocessing: "),
            ("backbone", {"name": "resnet18"}, "backbone: none, not resnet18"),
            ("backbone", {"layers": ("a", "b")}, "layers: mean, not a b"),
            ("backbone", {"weights_sha256": "f" * 64}, "weights_sha256: 000"),
        ],
    )
    def test_so_is_each_part_of_one(self, section: str, change: dict[str, Any], says: str) -> None:
        graph = make_graph_manifest()
        part = getattr(graph, section).model_copy(update=change)
        (found,) = differing_fields(graph, graph.model_copy(update={section: part}))
        assert found.startswith(says)

    def test_a_graph_is_of_the_manifest_it_serves(self) -> None:
        manifest: Manifest = make_manifest()
        graph = graph_of(manifest)
        assert (graph.score, graph.model_size) == (manifest.score, manifest.model_size)
        assert (graph.dimension, graph.neighbors) == (1, 1)
        assert graph.onnx is None


def test_the_least_rows_are_a_group_for_each_neighbour() -> None:
    assert make_graph_manifest(neighbors=9).least_rows == 288


def test_one_score_alone_asks_for_the_neighbours_of_rows() -> None:
    three = (MEMORY_BANK, BANK_SQUARES, BANK_STATISTICS)
    assert bank_inputs("noise-response") == bank_inputs("distance") == three
    assert bank_inputs("patchcore") == (*three, BANK_NEIGHBORS)
