"""Which weights the demo runs on: the pretrained ones where they can be had within seconds."""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from patchline.runtime.errors import WeightsError

BACKBONE = "resnet18"
PROBE_TIMEOUT_S = 4.0
"""How long the model hub may take to answer, name lookup included."""

_WEIGHTS_FILE = "model.safetensors"
_DEFAULT_HUB = "https://huggingface.co"
_TRUE = {"1", "on", "yes", "true"}

_FOR_SHOW = "this demo runs on an UNTRAINED backbone, for show only: its figures are no claim."


@dataclass(frozen=True)
class BackboneWeights:
    """What the demo gives to ``export-model --weights``.

    Attributes:
        option: a file, ``random``, or ``None`` for timm's own loading from the hub.
        description: what it is, for the table.
        warning: the one loud line, where the backbone is untrained.
    """

    option: str | None
    description: str
    warning: str | None = None


def choose_weights(
    asked: str | None, is_available: Callable[[], bool] | None = None
) -> BackboneWeights:
    """Choose the weights: the asked ones, else pretrained where the hub answers, else random.

    Args:
        asked: what the user gave as ``--weights``, or ``None``.
        is_available: tells whether the pretrained weights can be had; asked only when needed.
    """
    if asked == "random":
        return _untrained("As asked")
    if asked is not None:
        return BackboneWeights(asked, f"{BACKBONE}, weights of {asked}")
    if (is_available or pretrained_is_available)():
        return BackboneWeights(None, f"{BACKBONE}, pretrained ({hub_id()})")
    return _untrained("The model hub does not answer")


def pretrained_is_available() -> bool:
    """Whether timm's pretrained weights lie in the cache, or the model hub answers for them.

    Takes at most :data:`PROBE_TIMEOUT_S` for the network. ``HF_HUB_OFFLINE`` and ``HF_ENDPOINT``
    are respected, as the download will.
    """
    if _is_cached(hub_id()):
        return True
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
        return False
    hub = os.environ.get("HF_ENDPOINT") or _DEFAULT_HUB
    return answers(f"{hub.rstrip('/')}/{hub_id()}/resolve/main/{_WEIGHTS_FILE}")


def hub_id() -> str:
    """The model hub's name of the backbone's pretrained weights, as timm knows it.

    Raises:
        WeightsError: it knows none.
    """
    import timm

    config = timm.get_pretrained_cfg(BACKBONE)
    if config is None or not config.hf_hub_id:
        raise WeightsError(f"this timm knows no pretrained weights of {BACKBONE}: give --weights")
    return str(config.hf_hub_id)


def answers(url: str, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether a web address can be opened within ``timeout_s`` seconds, all in all.

    A name lookup heeds no timeout, so the question is asked in a thread that is left behind.
    """
    found = threading.Event()
    asking = threading.Thread(target=_ask, args=(url, timeout_s, found), daemon=True)
    asking.start()
    asking.join(timeout_s)
    return found.is_set()


def _untrained(reason: str) -> BackboneWeights:
    return BackboneWeights("random", f"{BACKBONE}, untrained", f"{reason}: {_FOR_SHOW}")


def _ask(url: str, timeout_s: float, found: threading.Event) -> None:
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=timeout_s):
            found.set()


def _is_cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, _WEIGHTS_FILE), str)
