"""Backbone weights: from a file, the model hub, or random when asked for; never by accident."""

from __future__ import annotations

import hashlib
import logging
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from patchline.runtime.errors import WeightsError

RANDOM = "random"
_RANDOM_SEED = 0
_SHOWN_KEYS = 4
_COUNTERS = "num_batches_tracked"  # of no use outside training, and often left out of files


@dataclass(frozen=True)
class Weights:
    """Where a backbone's weights came from.

    Attributes:
        source: for people: a file name, ``hub:NAME``, or ``random``.
        sha256: over the tensors in use, so that it is the same for any container.
    """

    source: str
    sha256: str


def load_weights(network: nn.Module, name: str, weights: str | None) -> Weights:
    """Fill ``network`` (a timm model with ``features_only``) in place.

    Args:
        network: the feature extractor, as made by timm without pretrained weights.
        name: its timm name.
        weights: a ``.pth``, ``.pt`` or ``.safetensors`` file, ``random``, or ``None`` for the hub.

    Raises:
        WeightsError: they cannot be loaded, or do not fit (says which keys).
    """
    if weights == RANDOM:
        _randomize(network, name)
        return Weights(RANDOM, digest_of_tensors(network.state_dict()))
    if weights is None:
        network.load_state_dict(_from_hub(name).state_dict())
        return Weights(f"hub:{name}", digest_of_tensors(network.state_dict()))
    path = Path(weights)
    _fill(network, name, _read(path), path)
    return Weights(path.name, digest_of_tensors(network.state_dict()))


def digest_of_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(key for key in tensors if not key.endswith(_COUNTERS)):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _randomize(network: nn.Module, name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        fresh = timm.create_model(name, pretrained=False, features_only=True, out_indices=(2, 3))
    network.load_state_dict(fresh.state_dict())


def _from_hub(name: str) -> nn.Module:
    # The client warns of each of its retries; the one sentence below says what there is to say.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=True, features_only=True, out_indices=(2, 3)
        )
    except Exception as error:  # the hub's client raises errors of many libraries
        raise WeightsError(
            f"the pretrained weights of {name} cannot be had from the model hub "
            f"({_reason(error)}). Without a network give a file: "
            "--weights FILE.pth or FILE.safetensors (or --weights random, for a trial only)"
        ) from error
    return model


def _reason(error: Exception) -> str:
    lines = [*str(error).strip().splitlines(), ""]
    return textwrap.shorten(f"{type(error).__name__}: {lines[0]}", 200, placeholder=" …")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"the weights file {path} does not exist")
    try:
        content = _read_tensors(path)
    except Exception as error:  # pickle, zip and safetensors errors share no base
        raise WeightsError(
            f"{path} holds no weights that can be read safely ({_reason(error)}). Expected a "
            ".safetensors file, or a .pth file with nothing but tensors in it"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} holds no state dict: expected tensors by name")
    return {str(key): value for key, value in content.items()}


def _read_tensors(path: Path) -> Any:
    if path.suffix.lower() == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _fill(network: nn.Module, name: str, tensors: dict[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    problems = [
        _listed("are missing", [k for k in own if k not in tensors and not k.endswith(_COUNTERS)]),
        _listed("have another shape", [k for k in own if _misfits(own[k], tensors.get(k))]),
        _listed("belong to another network", _foreign(own, tensors, name)),
    ]
    found = [problem for problem in problems if problem]
    if found:
        raise WeightsError(f"{path} does not fit {name}: {'; '.join(found)}")
    network.load_state_dict({key: tensors.get(key, own[key]) for key in own})


def _misfits(own: Tensor, given: Tensor | None) -> bool:
    return given is not None and given.shape != own.shape


def _foreign(own: dict[str, Tensor], tensors: dict[str, Tensor], name: str) -> list[str]:
    # Layers past the ones in use (layer4, fc) may be in the file; anything else is a mistake.
    if tensors.keys() <= own.keys():
        return []
    with torch.device("meta"):
        whole = timm.create_model(name, pretrained=False).state_dict()
    return [key for key in tensors if key not in own and key not in whole]


def _listed(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
    return f"{len(keys)} keys {what} ({', '.join(keys[:_SHOWN_KEYS])}{more})"
