"""What ONNX Runtime's engine says of how it runs; a plan's is with the tests of its engine."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from patchline.runtime.benchmark.subject import mode_document, model_document
from patchline.runtime.engine.base import EngineFacts, Wait
from patchline.runtime.engine.onnxruntime import OnnxRuntimeEngine

from ..tiny_model import make_manifest, make_trained_manifest


@pytest.mark.parametrize(("threads", "wait"), [(None, Wait.SPIN), (1, Wait.NONE), (2, Wait.SPIN)])
def test_on_the_cpu(tiny_model: Path, threads: int | None, wait: Wait) -> None:
    with OnnxRuntimeEngine(tiny_model, provider="cpu", threads=threads) as engine:
        assert engine.facts == EngineFacts(
            runtime="ONNX Runtime",
            version=onnxruntime.__version__,
            provider="CPUExecutionProvider",
            gpu=None,
            threads=threads,
            cuda_graph=False,
            wait=wait,
            least_batch=1,
            most_batch=None,
            in_flight=1,
        )
        assert mode_document(engine.facts)["transfers"] == "none"


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (None, "exact"),
        ({"leading": 64, "candidates": 32}, "pruned: 64 coordinates, 32 candidates"),
    ],
)
def test_the_search_is_named(search: dict[str, int] | None, expected: str) -> None:
    bank = make_manifest().memory_bank.model_dump() | {"search": search}
    found = model_document(make_manifest(memory_bank=bank))
    assert found["search"] == expected and found["bank_rows"] == 1


def test_a_model_without_a_bank_says_so() -> None:
    found = model_document(make_trained_manifest())
    assert found["method"] == "reverse-distillation"
    assert (found["bank_rows"], found["dimension"], found["search"]) == (None, None, None)


def test_through_cuda(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OnnxRuntimeEngine(tiny_model, provider="cpu", threads=1) as engine:
        monkeypatch.setattr(engine, "_provider", "CUDAExecutionProvider")
        assert (engine.facts.wait, engine.facts.gpu) == (Wait.CUDA, None)
        assert mode_document(engine.facts)["transfers"] == "counted"
