"""TensorRT for RTX with an observer in it: what our builder hands over, just before it builds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from patchline.runtime.engine.compat import Flavour

Tensor = tuple[str, str, tuple[int, ...]]
"""Name, TensorRT's name of its type, shape with -1 for what is dynamic."""


@dataclass
class Watched:
    """What was seen of the last build.

    Attributes:
        inputs: of the network.
        outputs: of the network.
        profile: smallest, usual and largest shape by input.
        types: of all layers' outputs.
        kinds: types of the outputs by kind of layer, such as ``CONVOLUTION``.
        strongly_typed: the network's flag.
        tf32: the configuration's flag.
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    profile: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    types: set[str] = field(default_factory=set)
    kinds: dict[str, list[str]] = field(default_factory=dict)
    strongly_typed: bool = False
    tf32: bool = True


def watch(flavour: Flavour) -> tuple[Flavour, Watched]:
    """The flavour with an observer, and what that writes into."""
    seen = Watched()
    return Flavour(flavour.name, _Module(flavour.trt, seen), flavour.version), seen


class _Module:
    def __init__(self, trt: Any, seen: Watched) -> None:
        self._trt, self._seen = trt, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trt, name)

    def Builder(self, log: Any) -> Any:
        return _Builder(self._trt, self._trt.Builder(log), self._seen)


class _Builder:
    def __init__(self, trt: Any, builder: Any, seen: Watched) -> None:
        self._trt, self._builder, self._seen = trt, builder, seen
        self._profiles: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def create_optimization_profile(self) -> Any:
        self._profiles.append(self._builder.create_optimization_profile())
        return self._profiles[-1]

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        trt, seen, (profile,) = self._trt, self._seen, self._profiles
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        seen.inputs = [_described(item) for item in inputs]
        seen.outputs = [_described(network.get_output(i)) for i in range(network.num_outputs)]
        seen.profile = {
            item.name: tuple(tuple(shape) for shape in profile.get_shape(item.name))
            for item in inputs
            if -1 in tuple(item.shape)
        }
        for layer in (network.get_layer(i) for i in range(network.num_layers)):
            types = [layer.get_output(i).dtype.name for i in range(layer.num_outputs)]
            seen.kinds.setdefault(layer.type.name, []).extend(types)
        seen.types = {name for types in seen.kinds.values() for name in types}
        seen.strongly_typed = network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        seen.tf32 = config.get_flag(trt.BuilderFlag.TF32)
        return self._builder.build_serialized_network(network, config)


def _described(tensor: Any) -> Tensor:
    return tensor.name, tensor.dtype.name, tuple(tensor.shape)
