"""TensorRT reads the exported graph: TensorRT for RTX parses and builds on a CPU (DESIGN 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from patchline.export.backbone import PatchEmbedder
from patchline.export.detector import AnomalyHead, Detector
from patchline.export.onnx_graph import save_onnx, to_onnx
from patchline.export.scores import SCORES
from patchline.runtime import contract
from patchline.runtime.contract import DistanceStatistics, ModelSize

from .conftest import ByScore

trt = pytest.importorskip("tensorrt_rtx_bindings")

LARGEST_BATCH = 8


class Network:
    """A strongly typed network parsed from a file; what it refers to lives as long as it does."""

    def __init__(self, path: Path) -> None:
        self.logger = trt.Logger(trt.Logger.ERROR)
        self.builder = trt.Builder(self.logger)
        strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.network: Any = self.builder.create_network(strongly_typed)
        self.parser = trt.OnnxParser(self.network, self.logger)
        if not self.parser.parse_from_file(str(path)):
            errors = [self.parser.get_error(i) for i in range(self.parser.num_errors)]
            listed = "; ".join(f"{e.node_operator()} {e.node_name()}: {e.desc()}" for e in errors)
            raise AssertionError(f"TensorRT {trt.__version__} refuses {path.name}: {listed}")

    @property
    def inputs(self) -> list[Any]:
        return [self.network.get_input(i) for i in range(self.network.num_inputs)]

    @property
    def outputs(self) -> list[Any]:
        return [self.network.get_output(i) for i in range(self.network.num_outputs)]

    def build(self) -> Any:
        """The plan for batches of 1 to 8, or ``None``."""
        config = self.builder.create_builder_config()
        profile = self.builder.create_optimization_profile()
        frame = tuple(self.inputs[0].shape)[1:]
        profile.set_shape(contract.FRAMES, (1, *frame), (1, *frame), (LARGEST_BATCH, *frame))
        assert config.add_optimization_profile(profile) == 0
        return self.builder.build_serialized_network(self.network, config)


@pytest.fixture(scope="module", params=sorted(SCORES))
def network(request: pytest.FixtureRequest, by_score: ByScore) -> Network:
    return Network(by_score(request.param)[1])


class TestEveryScore:
    def test_the_input_is_the_contracts(self, network: Network) -> None:
        found = [(item.name, item.dtype, tuple(item.shape)) for item in network.inputs]
        assert found == [(contract.FRAMES, trt.DataType.UINT8, (-1, 64, 64, 3))]

    def test_the_outputs_are_the_contracts(self, network: Network) -> None:
        found = [(item.name, item.dtype, tuple(item.shape)) for item in network.outputs]
        assert found == [
            (contract.IMAGE_SCORE, trt.DataType.FLOAT, (-1,)),
            (contract.ANOMALY_MAP, trt.DataType.FLOAT, (-1, 64, 64)),
            (contract.INFLUENCE_MAP, trt.DataType.FLOAT, (-1, 64, 64)),
        ]

    def test_types_come_from_the_file_and_none_is_lower_than_float32(
        self, network: Network
    ) -> None:
        assert network.network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        layers = [network.network.get_layer(i) for i in range(network.network.num_layers)]
        types = {layer.get_output(i).dtype for layer in layers for i in range(layer.num_outputs)}
        lower = {trt.DataType.HALF, trt.DataType.BF16, trt.DataType.FP8, trt.DataType.INT8}
        assert trt.DataType.FLOAT in types
        assert not types & lower

    def test_a_plan_for_batches_of_one_to_eight_builds(self, network: Network) -> None:
        plan = network.build()
        assert plan is not None
        # Not empty: the backbone's weights up to layer 3 are 11 MB of it.
        assert plan.nbytes > 8 << 20


def test_the_published_file_with_its_manifest_builds(exported: Path) -> None:
    assert Network(exported).build() is not None


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 px and 8,001 rows, which the bank's groups of 32 do not divide."""
    size = ModelSize(height=256, width=256)
    embedder = PatchEmbedder("resnet18", size, "random")
    bank = torch.randn(8001, embedder.dimension, generator=torch.Generator().manual_seed(0))
    statistics = DistanceStatistics(mean=20.0, std=2.0)
    head = AnomalyHead(bank, statistics, embedder.grid, size, score="noise-response", neighbors=9)
    path = tmp_path_factory.mktemp("full") / "full.onnx"
    save_onnx(to_onnx(Detector(embedder, head), size), path)
    return path


def test_a_model_of_usual_size_builds_and_holds_its_bank_once(full_size: Path) -> None:
    plan = Network(full_size).build()
    assert plan is not None
    bank_bytes = 8032 * 384 * 4
    # Room for padding and kernels, and none for a transposed copy of the bank.
    assert plan.nbytes < full_size.stat().st_size + bank_bytes // 2


def test_a_plan_does_not_load_without_a_gpu_and_does_not_crash(exported: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    network = Network(exported)
    plan = network.build()
    quiet = trt.Logger(trt.Logger.INTERNAL_ERROR)
    assert trt.Runtime(quiet).deserialize_cuda_engine(plan) is None


def test_a_refused_file_says_what_the_parser_did_not_like(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", [contract.FRAMES], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Det", ["pixels"], ["image_score"], name="determinant"),
    ]
    frames = helper.make_tensor_value_info(contract.FRAMES, TensorProto.UINT8, ["batch", 8, 8])
    score = helper.make_tensor_value_info("image_score", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "refused", [frames], [score])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = tmp_path / "refused.onnx"
    onnx.save_model(model, str(path))
    with pytest.raises(AssertionError, match=r"refuses refused.onnx: Det determinant: "):
        Network(path)
