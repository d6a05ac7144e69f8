"""Sends pictures to a class on a Triton Inference Server, and prints a line of JSON for each.

    pip install "patchline[triton]"
    python docs/examples/triton_client.py --url localhost:8000 --model bottle pictures/*.png
    python docs/examples/triton_client.py --url localhost:8001 --grpc --model bottle pictures/*.png

The server tells the size of its frames and the threshold (``config.pbtxt``, written by export-model
--serve triton). Pictures are resized here, by the code that the model was fitted with.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from patchline.runtime.contract import ANOMALY_MAP, FRAMES, IMAGE_SCORE, ModelSize
from patchline.runtime.errors import EngineError, MissingExtraError, PatchlineError
from patchline.runtime.image_file import read_image
from patchline.runtime.preprocess import Frame, preprocess


@dataclass(frozen=True)
class Served:
    """What the server says of a class: version of the model, size of its frames, threshold."""

    version: str
    size: ModelSize
    threshold: float
    map_threshold: float


class TritonModel:
    """A class on a server; ``judge`` is what to call.

    Raises:
        EngineError: the server is away, or has no such model; or it is none of Patchline's.
        MissingExtraError: tritonclient is not installed.
    """

    def __init__(self, url: str, name: str, *, grpc: bool = False, timeout_s: float = 10.0) -> None:
        self._name, self._grpc, self._timeout_s = name, grpc, timeout_s
        self._library = _library(grpc=grpc)
        options = {} if grpc else {"connection_timeout": timeout_s, "network_timeout": timeout_s}
        self._client = self._library.InferenceServerClient(url, **options)
        self.served = self._ask()

    def judge(self, frames: Frame) -> list[dict[str, Any]]:
        """Score, threshold and verdict of frames uint8 ``[B, H, W, 3]`` at model size.

        The version is asked for that the threshold belongs to. Where the server has another one by
        now, its configuration is read again, once.

        Raises:
            EngineError: the server is away, or refuses.
        """
        try:
            return self._judge(frames)
        except EngineError:
            before, self.served = self.served, self._ask()
            if self.served == before:
                raise
            return self._judge(frames)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _judge(self, frames: Frame) -> list[dict[str, Any]]:
        given = self._library.InferInput(FRAMES, list(frames.shape), "UINT8")
        given.set_data_from_numpy(frames)
        wanted = [self._library.InferRequestedOutput(name) for name in (IMAGE_SCORE, ANOMALY_MAP)]
        answer = self._call(
            "infer", self._name, [given], outputs=wanted, model_version=self.served.version
        )
        scores = answer.as_numpy(IMAGE_SCORE).reshape(-1)
        peaks = answer.as_numpy(ANOMALY_MAP).max(axis=(1, 2))
        return [self._verdict(*both) for both in zip(scores.tolist(), peaks.tolist(), strict=True)]

    def _verdict(self, score: float, peak: float) -> dict[str, Any]:
        return {
            "model": self._name,
            "version": self.served.version,
            "score": score,
            "threshold": self.served.threshold,
            "anomalous": score >= self.served.threshold,
            "region": peak >= self.served.map_threshold,
        }

    def _ask(self) -> Served:
        config = self._call(
            "get_model_config", self._name, **({"as_json": True} if self._grpc else {})
        )
        parameters = config.get("config", config).get("parameters", {})
        try:
            values = {key: value["string_value"] for key, value in parameters.items()}
            return Served(
                values["patchline.model_version"],
                ModelSize(
                    height=int(values["patchline.height"]), width=int(values["patchline.width"])
                ),
                _number(values["patchline.threshold"]),
                _number(values["patchline.map_threshold"]),
            )
        except KeyError as error:
            raise EngineError(
                f"{self._name} on the server was not written by export-model --serve triton: it "
                f"has no parameter {error}"
            ) from error
        except ValueError as error:
            raise EngineError(
                f"the parameters of {self._name} on the server were changed: {error}. Write them "
                "again with export-model --serve triton --only-serve"
            ) from error

    def _call(self, method: str, *given: Any, **options: Any) -> Any:
        if self._grpc:
            options["client_timeout"] = self._timeout_s
        try:
            return getattr(self._client, method)(*given, **options)
        except self._library.InferenceServerException as error:
            raise EngineError(f"Triton refused: {error.message()}") from error
        except OSError as error:  # over HTTP; gevent's timeouts among them
            raise EngineError(f"the Triton server cannot be reached: {error}") from error


def _number(text: str) -> float:
    """Raises: ValueError: it is none that a score can be held against."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no threshold")
    return number


def judge_pictures(model: TritonModel, paths: list[Path], batch: int) -> int:
    """Print a line for each picture; how many were anomalous."""
    found = 0
    for start in range(0, len(paths), batch):
        some = paths[start : start + batch]
        frames = np.stack([preprocess(read_image(path), model.served.size) for path in some])
        for path, verdict in zip(some, model.judge(frames), strict=True):
            typer.echo(json.dumps({"path": str(path), **verdict}))
            found += verdict["anomalous"]
    return found


def _library(*, grpc: bool) -> Any:
    try:
        if grpc:
            import tritonclient.grpc as library
        else:
            import tritonclient.http as library
    except ImportError as error:
        raise MissingExtraError(
            'tritonclient is not installed. Install it with: pip install "patchline[triton]"'
        ) from error
    return library


def main() -> int:
    """0, or 1 and a sentence where the server or a picture fails."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("pictures", nargs="+", type=Path)
    options.add_argument("--url", default="localhost:8000", help="HOST:PORT")
    options.add_argument("--model", required=True, help="the class")
    options.add_argument("--grpc", action="store_true", help="instead of HTTP")
    options.add_argument("--batch", type=int, default=1, help="pictures of a request")
    given = options.parse_args()
    if given.batch < 1:
        options.error(f"--batch is {given.batch}, expected 1 or more")
    try:
        model = TritonModel(given.url, given.model, grpc=given.grpc)
        try:
            judge_pictures(model, given.pictures, given.batch)
        finally:
            model.close()
    except PatchlineError as error:
        typer.echo(f"error: {error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
