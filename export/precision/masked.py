"""A graph with an external bank that judges each picture without the picture's own rows.

A good picture of the training set is judged by a bank that holds some of its own patches, which
tells nothing. Its own rows get the squared norm of rows that only fill up, so that they are
nobody's nearest: no refit, and the file that is judged is the one that ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchline.export.neighbors import FAR
from patchline.export.onnx_session import session_options
from patchline.runtime import contract
from patchline.runtime.bank import Bank
from patchline.runtime.contract import Manifest
from patchline.runtime.engine.base import Prediction
from patchline.runtime.engine.onnxruntime import import_onnxruntime
from patchline.runtime.errors import ConfigurationError, EngineError, ModelError
from patchline.runtime.graph import BANK_SQUARES
from patchline.runtime.preprocess import Frame

Rows = npt.NDArray[np.bool_]


class MaskedModel:
    """An :class:`~patchline.runtime.engine.base.Engine` over a graph and a bank, on the CPU.

    The rows around a row, which re-weight the ``patchcore`` score, are not masked.

    Args:
        graph: the ``.onnx`` file of a graph with an external bank.
        bank: the graph's inputs after ``frames`` by name; none for a model without a bank, which
            has no rows to leave out.
        manifest: of the product.

    Raises:
        ModelError: ONNX Runtime cannot open the graph.
    """

    def __init__(
        self, graph: Path, bank: Mapping[str, npt.NDArray[Any]], manifest: Manifest
    ) -> None:
        self.manifest = manifest
        self.graph = graph
        self.bank = bank
        self._runtime = import_onnxruntime()
        options = session_options(self._runtime)
        try:
            self._session: Any = self._runtime.InferenceSession(
                str(graph), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise ModelError(f"ONNX Runtime cannot open {graph.name}: {error}") from error
        make = self._runtime.OrtValue.ortvalue_from_numpy
        self._values = {name: make(array) for name, array in bank.items()}

    @property
    def description(self) -> str:
        """What runs it."""
        return f"ONNX Runtime {self._runtime.__version__}, CPUExecutionProvider"

    def infer(self, frames: Frame) -> Prediction:
        """Judge uint8 ``[B, H, W, 3]`` frames by the whole bank.

        Raises:
            EngineError: ONNX Runtime fails.
        """
        return self.judge(frames, None)

    def judge(self, frames: Frame, own_rows: Rows | None) -> Prediction:
        """Judge frames without some rows of the bank.

        Args:
            frames: uint8 ``[B, H, W, 3]``.
            own_rows: bool ``[M]``, rows to leave out; at least k others are left.

        Raises:
            EngineError: ONNX Runtime fails.
        """
        make = self._runtime.OrtValue.ortvalue_from_numpy
        given = {contract.FRAMES: make(np.ascontiguousarray(frames)), **self._values}
        if own_rows is not None and self.bank:
            given[BANK_SQUARES] = make(self._squares_without(own_rows))
        try:
            found = self._session.run_with_ort_values(list(contract.OUTPUTS), given)
        except Exception as error:  # as above
            raise EngineError(f"ONNX Runtime failed on {self.graph.name}: {error}") from error
        return Prediction(*(value.numpy() for value in found))

    def feeds(self, frames: Frame, own_rows: Rows) -> dict[str, npt.NDArray[Any]]:
        """What the graph takes to judge frames without some rows, by name."""
        squares = self._squares_without(own_rows)
        return {contract.FRAMES: frames, **self.bank, BANK_SQUARES: squares}

    def _squares_without(self, own_rows: Rows) -> npt.NDArray[np.float32]:
        squares: npt.NDArray[np.float32] = self.bank[BANK_SQUARES].copy()
        squares[: len(own_rows)][own_rows] = FAR
        return squares

    def load_bank(self, bank: Path | Bank) -> None:
        """Not for this engine.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(f"{self.graph.name} is judged with one bank: no other is loaded")

    def close(self) -> None:
        """Release the session."""
        self._session = None
        self._values = {}

    def __enter__(self) -> MaskedModel:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()
