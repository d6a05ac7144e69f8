"""The manifest: what is written is read again, and what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchline.runtime.contract import (
    Manifest,
    OnnxFile,
    Parity,
    differing_fields,
    load_manifest,
    manifest_path,
    parse_manifest,
)
from patchline.runtime.errors import ManifestError, WriteError

from .tiny_model import make_manifest, make_trained_manifest

finite = st.floats(allow_nan=False, allow_infinity=False)
scores = st.lists(finite, min_size=1, max_size=5).map(tuple)


def full_manifest() -> Manifest:
    """A manifest without a ``None``."""
    parity = Parity(
        frames=4,
        image_score_max_relative_error=1e-6,
        anomaly_map_max_relative_error=1e-6,
        influence_map_max_error=1e-6,
        batch_max_relative_error=0.0,
    )
    return make_manifest(parity=parity, onnx=OnnxFile(file="lamp.onnx", sha256="2" * 64))


def field_paths(document: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in document.items():
        yield (*above, name)
        if isinstance(value, dict) and name != "versions":
            yield from field_paths(value, (*above, name))


DOCUMENT = json.loads(full_manifest().to_json())


def changed(path: tuple[str, ...], **change: Any) -> str:
    """The JSON with one field replaced (``value=``) or left out."""
    document = json.loads(json.dumps(DOCUMENT))
    section = document
    for name in path[:-1]:
        section = section[name]
    if "value" in change:
        section[path[-1]] = change["value"]
    else:
        del section[path[-1]]
    return json.dumps(document)


@pytest.mark.parametrize("manifest", [make_manifest(), full_manifest()])
def test_a_manifest_survives_its_file(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "lamp.json"
    manifest.save(path)
    assert load_manifest(path) == manifest
    assert json.loads(path.read_text())["class"] == "lamp"


@given(mean=finite, std=finite, values=scores, name=st.text(min_size=1), seed=st.integers())
def test_any_manifest_survives_json(
    mean: float, std: float, values: tuple[float, ...], name: str, seed: int
) -> None:
    manifest = make_manifest(
        **{"class": name},
        distance_statistics={"mean": mean, "std": std},
        normal_scores={"scores": values, "map_maxima": values, "mean": mean, "std": std},
        versions={name: str(seed)},
    )
    assert parse_manifest(manifest.to_json(), "x") == manifest


LATER = {
    ("threshold", "interval"),
    ("threshold", "supported_rate"),
    ("threshold", "supported_value"),
    ("threshold", "tail"),
    ("threshold", "f1_max"),
    ("normal_scores", "source"),
    ("normal_scores", "carried_over"),
    ("training_set", "calibration_images"),
    ("training_set", "parts"),
    ("parity", "tied_patches"),
    ("memory_bank", "precision"),
    ("memory_bank", "search"),
    ("memory_bank", "search_problems"),
    ("memory_bank", "coreset"),
    ("conversion",),
    ("distillation",),
}
"""Fields that manifests of the first version may lack."""


@pytest.mark.parametrize("path", sorted(LATER), ids=".".join)
def test_a_field_that_came_later_has_a_default(path: tuple[str, ...]) -> None:
    assert parse_manifest(changed(path), "x") == full_manifest()


@pytest.mark.parametrize("path", sorted(set(field_paths(DOCUMENT)) - LATER), ids=".".join)
def test_a_missing_field_is_named(path: tuple[str, ...]) -> None:
    with pytest.raises(ManifestError, match=rf"x.json.*{path[-1]}"):
        parse_manifest(changed(path), "x.json")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("threshold", "value"), "high"),
        (("threshold", "value"), float("nan")),
        (("threshold", "map_value"), float("inf")),
        (("threshold", "false_alarm_rate"), 1.5),
        (("model_size", "height"), 0),
        (("model_size", "width"), 256.5),
        (("memory_bank", "coreset_ratio"), -0.1),
        (("normal_scores", "scores"), []),
        (("onnx", "sha256"), "short"),
        (("preprocessing", "channel_order"), "RGB"),
        (("precision",), "fp8"),
        (("class",), ""),
        (("backbone",), None),
        (("surprise",), 1),
        (("threshold", "surprise"), 1),
    ],
)
def test_a_wrong_or_unknown_field_is_named(path: tuple[str, ...], value: Any) -> None:
    with pytest.raises(ManifestError, match=rf"x.json is not a valid manifest: {'.'.join(path)}"):
        parse_manifest(changed(path, value=value), "x.json")


def test_a_trained_model_has_no_bank_and_survives_its_file(tmp_path: Path) -> None:
    trained = make_trained_manifest()
    trained.save(tmp_path / "lamp.json")
    document = json.loads((tmp_path / "lamp.json").read_text())
    assert document["memory_bank"] is document["distance_statistics"] is None
    assert document["distillation"]["noise"]["bank_rows"] == [40, 10, 3]
    assert load_manifest(tmp_path / "lamp.json") == trained


BANK_PARTS = ["memory_bank", "distance_statistics"]


@pytest.mark.parametrize("name", BANK_PARTS)
def test_a_model_has_a_whole_bank_or_was_trained(name: str) -> None:
    with pytest.raises(ManifestError, match=rf"x.json is not .*: {name}: expected a section"):
        parse_manifest(changed((name,), value=None), "x.json")
    document = json.loads(make_trained_manifest().to_json()) | {name: DOCUMENT[name]}
    with pytest.raises(ManifestError, match=rf": {name}: expected null beside distillation$"):
        parse_manifest(json.dumps(document), "x.json")


def test_what_is_missing_of_a_bank_is_named_together() -> None:
    document = DOCUMENT | dict.fromkeys(BANK_PARTS)
    with pytest.raises(ManifestError, match=r"memory_bank: expected .*; distance_statistics: exp"):
        parse_manifest(json.dumps(document), "x.json")


def test_a_bank_is_asked_for_where_it_is_needed() -> None:
    manifest, trained = make_manifest(), make_trained_manifest()
    assert manifest.required_bank() is manifest.memory_bank
    assert manifest.required_statistics() is manifest.distance_statistics
    for ask in (trained.required_bank, trained.required_statistics):
        with pytest.raises(ManifestError, match=r"lamp is of the method reverse-dist.* no memory"):
            ask()


def test_all_wrong_fields_are_named_at_once() -> None:
    document = json.loads(changed(("method",)))
    del document["score"]
    with pytest.raises(ManifestError, match=r"method: .*; score: "):
        parse_manifest(json.dumps(document), "x.json")


def test_a_newer_version_asks_for_an_upgrade() -> None:
    with pytest.raises(ManifestError, match=r"schema_version is 2.*Upgrade patchline"):
        parse_manifest(changed(("schema_version",), value=2), "x.json")


@pytest.mark.parametrize("version", [0, -1, "1", None, True, 1.5])
def test_a_version_that_never_was_is_an_error(version: Any) -> None:
    with pytest.raises(ManifestError, match="schema_version is"):
        parse_manifest(changed(("schema_version",), value=version), "x.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"text"', "null"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ManifestError, match=r"x\.json is not"):
        parse_manifest(text, "x.json")


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lamp.json"
    with pytest.raises(ManifestError, match=r"lamp\.json is missing"):
        load_manifest(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match=r"lamp\.json cannot be read"):
        load_manifest(path)


def test_a_manifest_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError):
        make_manifest().save(tmp_path / "file/lamp.json")


def test_the_manifest_lies_beside_the_model() -> None:
    assert manifest_path(Path("models/lamp.onnx")) == Path("models/lamp.json")


def test_a_manifest_is_compared_with_the_models_copy_except_for_the_threshold() -> None:
    inside = make_manifest()
    other = inside.threshold.model_copy(update={"value": 3.0})
    digest = full_manifest().onnx
    beside = inside.model_copy(update={"threshold": other, "onnx": digest})
    assert differing_fields(beside, inside) == []
    assert differing_fields(full_manifest(), inside)[0].startswith("parity")
    edited = make_manifest(model_size={"height": 64, "width": 32}, score="distance")
    assert [line.split(":")[0] for line in differing_fields(edited, inside)] == [
        "score",
        "model_size",
    ]
