"""The model in half precision: its search against brute force, its file against the module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchline.export.backbone import PatchEmbedder
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.external_bank import ExternalDetector, bank_tensors, graph_inputs
from patchline.export.fit import FittedModel
from patchline.export.neighbors import LARGEST_HALF_NORM, HalfNearestNeighbors
from patchline.export.onnx_graph import save_onnx, to_onnx
from patchline.export.parity import Tolerances, verify_parity
from patchline.export.precision.half import HALF_TOLERANCES, half_detector
from patchline.export.precision.overflow import first_overflow
from patchline.export.scores import SCORES
from patchline.export.ties import tie_allowance
from patchline.runtime import contract
from patchline.runtime.contract import DistanceStatistics, ModelSize
from patchline.runtime.errors import ConfigurationError, ParityError
from patchline.runtime.graph import (
    BANK_NEIGHBORS,
    BANK_SQUARES,
    HALF_SPARES,
    MEMORY_BANK,
    bank_inputs,
    least_bank_rows,
)
from patchline.runtime.preprocess import Frame

from .conftest import ByScore

EPSILON = 2.0**-11
"""Half precision rounds by this share at most."""

Arrays = list[np.ndarray]


def distances(bank: Tensor, queries: Tensor) -> Tensor:
    """All distances [N, M] in float64, by differences."""
    return (queries.double().unsqueeze(1) - bank.double()).square().sum(2).sqrt()


def drawn(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


class TestSearch:
    @given(
        rows=st.integers(1, 500),
        k=st.integers(1, 12),
        width=st.integers(1, 40),
        offset=st.sampled_from([0.0, 1.0, 5.0]),
        seed=st.integers(0, 999),
    )
    @settings(max_examples=150, deadline=None)
    def test_every_row_found_is_as_near_as_rounding_can_tell(
        self, rows: int, k: int, width: int, offset: float, seed: int
    ) -> None:
        """Against a sort of all distances to the stored rows in float64."""
        bank, queries = (drawn(n, width, seed + i) + offset for i, n in enumerate((rows, 8)))
        search = HalfNearestNeighbors(bank, k)
        found, stored = search(queries), bank.half()
        assert found.shape == (8, min(k, rows)) and found.max() < rows
        assert all(len(set(row)) == search.k for row in found.tolist())
        true = distances(stored, queries)
        nearest = true.sort(dim=1).values[:, : search.k]
        # A product is off by one rounding of z and one of the sum: a row is lost to another only
        # where both together cover their difference.
        product = 2 * EPSILON * queries.norm(dim=1, keepdim=True) * stored.float().norm(dim=1).max()
        allowed = 2 * 2 * 2 * product + 1e-4
        got = true.gather(1, found)
        assert (got.square() - nearest.square() <= allowed).all()
        # And nearest first, as exactly as float32 ranks.
        assert (got.square().diff(dim=1) >= -1e-4 * (1 + offset**2) * width).all()

    @pytest.mark.parametrize("rows", [1, 5, 9, 17, 31, 32, 33])
    def test_a_bank_of_few_rows_is_searched_exactly(self, rows: int) -> None:
        """All of its rows are ranked again: the fill is never taken for one, nor any lost."""
        bank, queries = drawn(rows, 6, 0) + 20, torch.cat([torch.zeros(3, 6), drawn(20, 6, 1)])
        search = HalfNearestNeighbors(bank, 9)
        found, true = search(queries), distances(bank.half(), queries)
        assert found.shape == (23, min(9, rows))
        nearest = true.sort(dim=1).values[:, :9]
        torch.testing.assert_close(true.gather(1, found), nearest, rtol=1e-5, atol=0)

    def test_all_nine_are_found_nearly_always(
        self, fitted: FittedModel, seven_frames: Frame
    ) -> None:
        """The same nine rows as of a sort in float64, with a backbone's own features."""
        with torch.inference_mode():
            queries = fitted.detector.embedder(torch.from_numpy(seven_frames)).flatten(0, 2)
        search = HalfNearestNeighbors(fitted.memory_bank, 9)
        true = distances(fitted.memory_bank.half(), queries)
        got = true.gather(1, search(queries)).sort(dim=1).values
        nearest = true.sort(dim=1).values[:, :9]
        same = (got - nearest <= 1e-5 * fitted.detector.head.mean_norm).all(1)
        assert same.float().mean() >= 0.999
        assert torch.equal(got[:, 0], nearest[:, 0])

    def test_spare_rows_find_what_k_alone_would_miss(self) -> None:
        """Rows whose products differ by less than a half can tell."""
        base = torch.full((1, 64), 2.0)
        bank = base + 0.1 * drawn(320, 64, 0)
        queries = base + 0.1 * drawn(40, 64, 1)
        search, true = HalfNearestNeighbors(bank, 2), distances(bank.half(), queries)
        stored = search.get_buffer("bank")
        ranking = (queries.half() @ stored.t()).float() * -1 + search.get_buffer("squares") / 2
        k_alone = true.gather(1, ranking.topk(2, largest=False).indices).sum(1)
        with_spares = true.gather(1, search(queries)).sum(1)
        nearest = true.sort(dim=1).values[:, :2].sum(1)
        assert (with_spares / nearest).mean() < 1.01 < 1.03 < (k_alone / nearest).mean()

    @pytest.mark.parametrize("seed", range(3))
    def test_rows_that_are_marked_as_far_are_never_found(self, seed: int) -> None:
        """As the gate leaves out a picture's own rows: by their squares alone."""
        bank = drawn(200, 12, seed)
        search, own = HalfNearestNeighbors(bank, 9), torch.arange(40, 80)
        squares = search.get_buffer("squares").clone()
        squares[own] = 1e30
        found = torch.func.functional_call(search, {"squares": squares}, (bank[own],))
        assert not torch.isin(found, own).any()
        rest = torch.cat([bank[:40], bank[80:]]).half()
        nearest = distances(rest, bank[own]).sort(dim=1).values[:, :9]
        got = distances(bank.half(), bank[own]).gather(1, found)
        torch.testing.assert_close(got, nearest, rtol=1e-4, atol=0)

    def test_it_holds_rows_in_half_and_their_own_squares_in_float32(self) -> None:
        bank = drawn(50, 8, 0)
        search = HalfNearestNeighbors(bank, 9)
        stored, squares = search.get_buffer("bank"), search.get_buffer("squares")
        assert stored.dtype == torch.float16 and squares.dtype == torch.float32
        assert torch.equal(stored[:50], bank.half())
        torch.testing.assert_close(squares[:50], stored[:50].float().square().sum(1))
        assert (squares[50:] == 1e30).all()
        indices = torch.tensor([[3, 0], [49, 49]])
        assert torch.equal(search.gather(indices), bank.half().float()[indices])
        assert bank.dtype == torch.float32

    def test_rows_too_long_for_products_in_half_are_refused(self) -> None:
        bank = torch.zeros(3, 4)
        bank[1, 2] = LARGEST_HALF_NORM
        HalfNearestNeighbors(bank, 1)
        bank[1, 3] = 9.0
        with pytest.raises(ConfigurationError, match=r"norm 128.*in float32 take any"):
            HalfNearestNeighbors(bank, 1)

    def test_rows_past_the_range_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="finite memory bank"):
            HalfNearestNeighbors(torch.full((3, 4), 7e4), 1)


class TestModule:
    @pytest.mark.parametrize("bank", ["fp32", "fp16"])
    def test_the_given_one_is_left_alone(self, fitted: FittedModel, bank: Any) -> None:
        before = {name: value.clone() for name, value in fitted.detector.state_dict().items()}
        half_detector(fitted.detector, bank=bank)
        after = fitted.detector.state_dict()
        assert after.keys() == before.keys()
        for name, value in before.items():
            assert after[name].dtype == value.dtype and torch.equal(after[name], value)

    @pytest.mark.parametrize("bank", ["fp32", "fp16"])
    def test_backbone_and_bank_are_half_and_nothing_else(
        self, fitted: FittedModel, bank: Any
    ) -> None:
        half = half_detector(fitted.detector, bank=bank)
        in_half = {n for n, v in half.state_dict().items() if v.dtype == torch.float16}
        of_network = {
            n
            for n, v in half.state_dict().items()
            if n.startswith("embedder.network.") and v.is_floating_point()
        }
        assert in_half == of_network | ({"head.search.bank"} if bank == "fp16" else set())

    @pytest.mark.parametrize("score", sorted(SCORES))
    def test_score_statistics_and_k_are_those_of_the_given_one(
        self, by_score: ByScore, score: str
    ) -> None:
        detector = by_score(score)[0]
        half = half_detector(detector, bank="fp16")
        assert half.head.score_name == score and half.head.search.k == detector.head.search.k
        for name in ("noise.mean", "noise.std"):
            assert torch.equal(half.head.state_dict()[name], detector.head.state_dict()[name])

    def test_distances_are_those_to_the_stored_rows_in_float32(self, fitted: FittedModel) -> None:
        head = half_detector(fitted.detector, bank="fp16").head
        rows = fitted.memory_bank[::7] + 0.1 * fitted.memory_bank.std()
        indices = head.search(rows)
        found = head.influence(rows, indices).distances
        expected = distances(fitted.memory_bank.half(), rows).gather(1, indices)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)

    def test_a_patch_that_is_a_row_has_no_direction(self, fitted: FittedModel) -> None:
        """Rounding the row moved it away from itself, and that says nothing."""
        head = half_detector(fitted.detector, bank="fp16").head
        rows = fitted.memory_bank[:50]
        found = head.influence(rows, head.search(rows)[:, :1])
        assert (found.distances < 1e-3 * head.mean_norm).all()
        assert (found.jacobian == 0).all()

    def test_the_neighbours_of_rows_are_those_of_the_stored_rows(self, by_score: ByScore) -> None:
        detector = by_score("patchcore")[0]
        head = half_detector(detector, bank="fp16").head
        stored = head.search.get_buffer("bank")[: head.search.rows]
        around = head.score.get_buffer("around")[: head.search.rows]
        true = distances(stored, stored.float())
        nearest = true.sort(dim=1).values[:, :9]
        torch.testing.assert_close(true.gather(1, around), nearest, rtol=1e-4, atol=1e-3)


Exports = Callable[[str], tuple[Detector, Path]]


@pytest.fixture(scope="module")
def exports(by_score: ByScore, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Module and file of each score with its bank in half, made once."""
    folder = tmp_path_factory.mktemp("half")

    @functools.cache
    def make(score: str) -> tuple[Detector, Path]:
        half = half_detector(by_score(score)[0], bank="fp16")
        path = folder / f"{score}.onnx"
        save_onnx(to_onnx(half, half.embedder.size), path)
        return half, path

    return make


def run(path: Path, frames: Frame, bank: dict[str, np.ndarray] | None = None) -> Arrays:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: Arrays = session.run(None, {contract.FRAMES: frames, **(bank or {})})
    return found


@pytest.mark.parametrize("score", sorted(SCORES))
class TestFile:
    def test_it_computes_what_the_module_does(
        self, exports: Exports, seven_frames: Frame, score: str
    ) -> None:
        half, path = exports(score)
        verify_parity(path, half, seven_frames[1:5], HALF_TOLERANCES)

    def test_one_frame_gives_what_three_at_once_do(
        self, exports: Exports, seven_frames: Frame, score: str
    ) -> None:
        path, frames = exports(score)[1], seven_frames[-3:]
        together = run(path, frames)
        alone = [run(path, frames[i : i + 1]) for i in range(3)]
        for index, outputs in enumerate(together):
            single = np.concatenate([each[index] for each in alone])
            np.testing.assert_allclose(single, outputs, rtol=1e-4, atol=1e-4 * outputs.max())

    def test_the_bank_beside_gives_what_the_bank_inside_does(
        self, exports: Exports, seven_frames: Frame, tmp_path: Path, score: str
    ) -> None:
        half, path = exports(score)
        graph = tmp_path / "graph.onnx"
        inputs = graph_inputs(half.head)
        save_onnx(to_onnx(ExternalDetector(half), half.embedder.size, inputs), graph)
        tensors = bank_tensors(half.head)
        assert tuple(tensors) == tuple(inputs) == bank_inputs(score)
        found = run(graph, seven_frames, tensors)
        for inside, beside in zip(run(path, seven_frames), found, strict=True):
            np.testing.assert_allclose(beside, inside, rtol=1e-4, atol=1e-4 * inside.max())
        if score == "patchcore":  # which has every input
            verify_parity(graph, half, seven_frames[:2], HALF_TOLERANCES, tensors)

    def test_frames_are_uint8_and_outputs_float32(self, exports: Exports, score: str) -> None:
        graph = onnx.load(str(exports(score)[1])).graph
        onnx.checker.check_model(onnx.load(str(exports(score)[1])), full_check=True)
        types = [item.type.tensor_type.elem_type for item in [*graph.input, *graph.output]]
        assert types == [onnx.TensorProto.UINT8] + [onnx.TensorProto.FLOAT] * 3

    def test_every_convolution_is_half_and_the_bank_is_held_once(
        self, exports: Exports, score: str
    ) -> None:
        half, path = exports(score)
        graph = onnx.load(str(path)).graph
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        weights = [tensors[n.input[1]] for n in graph.node if n.op_type == "Conv"]
        assert weights and {w.data_type for w in weights} == {onnx.TensorProto.FLOAT16}
        shape = list(half.head.search.get_buffer("bank").shape)
        banks = [t for t in graph.initializer if list(t.dims) in (shape, shape[::-1])]
        assert [t.data_type for t in banks] == [onnx.TensorProto.FLOAT16]


def test_the_bank_beside_is_filled_up_for_the_spare_rows(by_score: ByScore) -> None:
    detector = by_score("patchcore")[0]
    k, width = detector.head.search.k, detector.head.search.get_buffer("bank").shape[1]
    least = least_bank_rows(k, "fp16")
    assert least == 32 * (k + HALF_SPARES)
    few = AnomalyHead(
        torch.rand(40, width),
        DistanceStatistics(mean=1.0, std=0.1),
        detector.embedder.grid,
        detector.embedder.size,
        score="patchcore",
        neighbors=k,
        bank_precision="fp16",
    )
    tensors = bank_tensors(few)
    assert tensors[MEMORY_BANK].dtype == np.float16 and tensors[BANK_SQUARES].dtype == np.float32
    for name in (MEMORY_BANK, BANK_SQUARES, BANK_NEIGHBORS):
        assert len(tensors[name]) == least
    assert (tensors[BANK_SQUARES][40:] == np.float32(1e30)).all()


def test_a_file_that_computes_something_else_is_refused(
    exports: Exports, by_score: ByScore, seven_frames: Frame
) -> None:
    """The tolerances for half precision still see another score, and another bank."""
    half, path = exports("noise-response")
    with pytest.raises(ParityError, match="image_score"):
        verify_parity(exports("distance")[1], half, seven_frames, HALF_TOLERANCES)
    head = half.head
    statistics = DistanceStatistics(mean=float(head.noise.get_buffer("mean")) * 1.2, std=0.5)
    other = AnomalyHead(
        head.search.gather(torch.arange(head.search.rows)),
        statistics,
        head.grid,
        half.embedder.size,
        score="noise-response",
        neighbors=head.search.k,
        bank_precision="fp16",
    )
    with pytest.raises(ParityError):
        verify_parity(path, Detector(half.embedder, other), seven_frames, HALF_TOLERANCES)


def test_the_float32_tolerances_are_too_narrow_for_it(
    exports: Exports, seven_frames: Frame
) -> None:
    """Or there would be no need of others."""
    half, path = exports("noise-response")
    with pytest.raises(ParityError):
        verify_parity(path, half, seven_frames, Tolerances())


def test_ties_are_looked_for_in_the_stored_rows(exports: Exports, seven_frames: Frame) -> None:
    half = exports("distance")[0]
    allowance = tie_allowance(half, seven_frames[:1])
    assert all(np.isfinite(output).all() for output in allowance.outputs)


def test_the_file_is_little_more_than_half_as_large() -> None:
    """ResNet-18 at 256 px with 2,048 rows: at most 0.55 of float32."""
    size = ModelSize(height=256, width=256)
    embedder = PatchEmbedder("resnet18", size, "random")
    head = AnomalyHead(
        drawn(2048, embedder.dimension, 0),
        DistanceStatistics(mean=20.0, std=2.0),
        embedder.grid,
        size,
        score="noise-response",
        neighbors=9,
    )
    detector = Detector(embedder, head)
    whole = len(to_onnx(detector, size).SerializeToString())
    half = len(to_onnx(half_detector(detector, bank="fp16"), size).SerializeToString())
    assert half <= 0.55 * whole


def test_an_overflow_in_the_backbone_names_its_convolution(
    fitted: FittedModel, seven_frames: Frame, tmp_path: Path
) -> None:
    half = half_detector(fitted.detector, bank="fp16")
    path = tmp_path / "sound.onnx"
    save_onnx(to_onnx(half, half.embedder.size), path)
    feeds = {contract.FRAMES: seven_frames[:1]}
    assert first_overflow(path, feeds) is None
    model = onnx.load(str(path))
    planted = [node for node in model.graph.node if node.op_type == "Conv"][3]
    for tensor in model.graph.initializer:
        if tensor.name == planted.input[1]:
            weights = onnx.numpy_helper.to_array(tensor)
            large = np.full_like(weights, 60000)
            tensor.CopyFrom(onnx.numpy_helper.from_array(large, tensor.name))
    onnx.save_model(model, str(tmp_path / "planted.onnx"))
    found = first_overflow(tmp_path / "planted.onnx", feeds)
    layer = "layer1.1.conv1"  # the fourth, after the stem, layer1.0.conv1 and layer1.0.conv2
    assert planted.input[1].endswith(f"{layer}.weight")
    assert found == f"{planted.name} (Conv, {layer})"
