"""Backbone weights: every container, every misfit, and never anything by accident."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from patchline.export import weights as module
from patchline.export.weights import digest_of_tensors, load_weights
from patchline.runtime.errors import WeightsError

NAME = "resnet18"


def network() -> nn.Module:
    """An empty network: what is loaded is all there is in it."""
    made: nn.Module = timm.create_model(
        NAME, pretrained=False, features_only=True, out_indices=(2, 3)
    )
    with torch.no_grad():
        for tensor in made.state_dict().values():
            tensor.zero_()
    return made


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    """A state dict of the whole network, layer4 and fc included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        whole = timm.create_model(NAME, pretrained=False)
        for value in whole.state_dict().values():
            if value.is_floating_point() and value.ndim == 1:
                value.uniform_(0.5, 1.5)
    state: dict[str, Tensor] = whole.state_dict()
    return state


def used(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in tensors.items() if not k.startswith(("layer4", "fc"))}


def save_pth(tensors: Any, path: Path) -> Path:
    torch.save(tensors, path)
    return path


def save_safetensors(tensors: dict[str, Tensor], path: Path) -> Path:
    safetensors.torch.save_file({k: v.clone() for k, v in tensors.items()}, path)
    return path


SAVERS: dict[str, Callable[[Any, Path], Path]] = {
    "w.pth": save_pth,
    "w.pt": save_pth,
    "w.safetensors": save_safetensors,
    "w.SAFETENSORS": save_safetensors,
}


class TestFiles:
    @pytest.mark.parametrize("name", SAVERS)
    def test_every_container_gives_the_same_values_and_digest(
        self, trained: dict[str, Tensor], tmp_path: Path, name: str
    ) -> None:
        filled = network()
        loaded = load_weights(filled, NAME, str(SAVERS[name](trained, tmp_path / name)))
        assert loaded.source == name
        assert loaded.sha256 == digest_of_tensors(used(trained))
        for key, value in filled.state_dict().items():
            assert torch.equal(value, trained[key]), key

    def test_layers_past_the_ones_in_use_may_be_missing(
        self, trained: dict[str, Tensor], tmp_path: Path
    ) -> None:
        whole = load_weights(network(), NAME, str(save_pth(trained, tmp_path / "a.pth")))
        part = load_weights(network(), NAME, str(save_pth(used(trained), tmp_path / "b.pth")))
        assert whole.sha256 == part.sha256

    def test_counters_of_batch_norm_may_be_missing(
        self, trained: dict[str, Tensor], tmp_path: Path
    ) -> None:
        kept = {k: v for k, v in trained.items() if not k.endswith("num_batches_tracked")}
        filled = network()
        load_weights(filled, NAME, str(save_pth(kept, tmp_path / "a.pth")))
        assert torch.equal(filled.state_dict()["conv1.weight"], trained["conv1.weight"])

    def test_a_checkpoint_with_the_state_dict_inside(
        self, trained: dict[str, Tensor], tmp_path: Path
    ) -> None:
        checkpoint = {"state_dict": trained, "epoch": 3, "best": 0.5}
        path = save_pth(checkpoint, tmp_path / "a.pth")
        loaded = load_weights(network(), NAME, str(path))
        assert loaded.sha256 == digest_of_tensors(used(trained))

    def test_half_precision_weights_become_float32(
        self, trained: dict[str, Tensor], tmp_path: Path
    ) -> None:
        halves = {k: v.half() if v.is_floating_point() else v for k, v in trained.items()}
        filled = network()
        load_weights(filled, NAME, str(save_pth(halves, tmp_path / "a.pth")))
        value = filled.state_dict()["conv1.weight"]
        assert value.dtype == torch.float32
        assert torch.equal(value, halves["conv1.weight"].float())


class TestMisfits:
    def refused(self, tensors: Any, tmp_path: Path) -> str:
        path = save_pth(tensors, tmp_path / "w.pth")
        filled = network()
        with pytest.raises(WeightsError) as caught:
            load_weights(filled, NAME, str(path))
        # Nothing of a wrong file gets into the network.
        assert all(not value.any() for value in filled.state_dict().values())
        assert str(path) in str(caught.value)
        return str(caught.value)

    def test_missing_keys_are_named(self, trained: dict[str, Tensor], tmp_path: Path) -> None:
        kept = {k: v for k, v in trained.items() if not k.startswith(("conv1", "bn1"))}
        message = self.refused(kept, tmp_path)
        assert "does not fit resnet18: 5 keys are missing (conv1.weight, bn1.weight" in message
        assert "and 1 more)" in message

    def test_wrong_shapes_are_named(self, trained: dict[str, Tensor], tmp_path: Path) -> None:
        changed = trained | {"conv1.weight": torch.zeros(64, 1, 7, 7)}
        message = self.refused(changed, tmp_path)
        assert "1 keys have another shape (conv1.weight)" in message

    def test_foreign_keys_are_named(self, trained: dict[str, Tensor], tmp_path: Path) -> None:
        message = self.refused(trained | {"layer3.9.conv1.weight": torch.zeros(1)}, tmp_path)
        assert "1 keys belong to another network (layer3.9.conv1.weight)" in message

    def test_another_backbones_weights_show_all_that_is_wrong(self, tmp_path: Path) -> None:
        other = timm.create_model("resnet26d", pretrained=False).state_dict()
        message = self.refused(other, tmp_path)
        for what in ("are missing", "have another shape", "belong to another network"):
            assert what in message

    @pytest.mark.parametrize(
        "content",
        [[torch.zeros(2)], torch.zeros(2), {"epoch": 3}, {"state_dict": {"a": 1}}, {"a": [1]}],
        ids=["list", "tensor", "number", "nested number", "list of numbers"],
    )
    def test_what_is_no_state_dict(self, content: Any, tmp_path: Path) -> None:
        assert "holds no state dict: expected tensors by name" in self.refused(content, tmp_path)

    def test_an_empty_state_dict(self, tmp_path: Path) -> None:
        assert "keys are missing" in self.refused({}, tmp_path)


class Bomb:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


class TestUnsafeAndUnreadable:
    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_a_pickle_with_code_in_it_is_never_run(self, tmp_path: Path, protocol: int) -> None:
        target, path = tmp_path / "was-here", tmp_path / "w.pth"
        path.write_bytes(pickle.dumps({"conv1.weight": Bomb(target)}, protocol))
        pickle.loads(path.read_bytes())
        assert target.exists()  # so it would work
        target.unlink()
        with pytest.raises(WeightsError, match="holds no weights that can be read safely"):
            load_weights(network(), NAME, str(path))
        assert not target.exists()

    def test_nor_is_one_inside_of_pytorchs_own_container(self, tmp_path: Path) -> None:
        target = tmp_path / "was-here"
        path = save_pth({"conv1.weight": Bomb(target)}, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="holds no weights that can be read safely"):
            load_weights(network(), NAME, str(path))
        assert not target.exists()

    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    @pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04", b"PK\x03\x04" * 9])
    def test_rubbish(self, tmp_path: Path, name: str, content: bytes) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=rf"{name} holds no weights that can be read"):
            load_weights(network(), NAME, str(path))

    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    def test_a_cut_file(self, trained: dict[str, Tensor], tmp_path: Path, name: str) -> None:
        path = SAVERS[name](trained, tmp_path / name)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(WeightsError, match=rf"{name} holds no weights that can be read"):
            load_weights(network(), NAME, str(path))

    @pytest.mark.parametrize("name", ["none.pth", "."])
    def test_a_missing_file(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(WeightsError, match="does not exist"):
            load_weights(network(), NAME, str(tmp_path / name))


class TestRandom:
    def test_it_is_the_same_each_time_and_said_to_be_random(self) -> None:
        first, second = network(), network()
        one, two = load_weights(first, NAME, "random"), load_weights(second, NAME, "random")
        assert one == two
        assert one.source == "random"
        assert first.state_dict()["conv1.weight"].std() > 0
        for key, value in first.state_dict().items():
            assert torch.equal(value, second.state_dict()[key])

    def test_the_global_generator_is_left_alone(self) -> None:
        empty = network()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            expected = torch.rand(4)
            torch.manual_seed(3)
            load_weights(empty, NAME, "random")
            assert torch.equal(torch.rand(4), expected)


class TestHub:
    @pytest.mark.parametrize(
        "error", [OSError("no route to host\nsecond line"), RuntimeError(""), KeyError("x")]
    )
    def test_a_hub_that_does_not_answer_says_the_way_out(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def refuse(name: str, **options: Any) -> nn.Module:
            assert options["pretrained"] is True
            raise error

        empty = network()
        monkeypatch.setattr(module.timm, "create_model", refuse)
        with pytest.raises(WeightsError) as caught:
            load_weights(empty, NAME, None)
        message = str(caught.value)
        assert message.startswith("the pretrained weights of resnet18 cannot be had")
        assert "--weights FILE.pth" in message and "--weights random" in message
        assert type(error).__name__ in message
        assert "\n" not in message
        assert all(not value.any() for value in empty.state_dict().values())

    def test_the_hubs_weights_are_taken_and_named(
        self, monkeypatch: pytest.MonkeyPatch, trained: dict[str, Tensor]
    ) -> None:
        empty, full = network(), network()
        full.load_state_dict(used(trained))
        monkeypatch.setattr(module.timm, "create_model", lambda name, **options: full)
        loaded = load_weights(empty, NAME, None)
        assert loaded.source == "hub:resnet18"
        assert loaded.sha256 == digest_of_tensors(used(trained))
        assert torch.equal(empty.state_dict()["conv1.weight"], trained["conv1.weight"])


class TestDigest:
    def test_order_layout_and_counters_do_not_count(self) -> None:
        a, b = torch.arange(6.0).view(2, 3), torch.tensor(2)
        plain = digest_of_tensors({"a": a, "b": b})
        turned = a.t().contiguous().t()
        counted = {"b": b, "a": turned, "bn.num_batches_tracked": torch.tensor(9)}
        assert digest_of_tensors(counted) == plain

    @pytest.mark.parametrize(
        "other",
        [
            {"c": torch.zeros(2, 3)},
            {"a": torch.zeros(3, 2)},
            {"a": torch.zeros(2, 3, dtype=torch.int32)},
            {"a": torch.zeros(2, 3).index_fill(0, torch.tensor(0), 1e-30)},
        ],
        ids=["name", "shape", "type", "value"],
    )
    def test_names_shapes_types_and_values_count(self, other: dict[str, Tensor]) -> None:
        assert digest_of_tensors(other) != digest_of_tensors({"a": torch.zeros(2, 3)})
