"""An engine that survives the loss of its GPU: it is opened again and judges the same frames."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from patchline.runtime.bank import Bank, as_bank
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.contract import Manifest
from patchline.runtime.engine.base import Engine, Prediction
from patchline.runtime.errors import DeviceLostError, EngineError
from patchline.runtime.preprocess import Frame

OnRecovery = Callable[[DeviceLostError], None]
"""Told of each loss, before the engine is opened again."""

_Result = TypeVar("_Result")


class RecoveringEngine:
    """An :class:`~patchline.runtime.engine.base.Engine` that opens another one when it must.

    Args:
        open_engine: opens the engine, with the bank that was given first.
        on_recovery: told of each loss.
        attempts: so many losses within ``within_s`` seconds are recovered from; the next one's
            error goes through, and the engine is closed.
        within_s: see there.
        clock: for that.

    Raises:
        EngineError: as ``open_engine`` does.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        *,
        on_recovery: OnRecovery = lambda error: None,
        attempts: int = 3,
        within_s: float = 60.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._open = open_engine
        self._on_recovery = on_recovery
        self._losses_s: collections.deque[float] = collections.deque()
        self._attempts, self._within_s, self._clock = attempts, within_s, clock
        self._bank: Bank | None = None
        self._engine = open_engine()
        self._is_closed = False

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model that runs; with an external bank, that of the bank."""
        return self._engine.manifest

    @property
    def description(self) -> str:
        """What runs it."""
        return self._engine.description

    def infer(self, frames: Frame) -> Prediction:
        """Judge uint8 ``[B, H, W, 3]`` frames, again after a loss; see :meth:`Engine.infer`.

        Raises:
            DeviceLostError: the GPU was lost too often.
        """
        return self._surviving(lambda: self._engine.infer(frames))

    def load_bank(self, bank: Path | Bank) -> None:
        """Judge by another product's bank, also after a loss; see :meth:`Engine.load_bank`.

        What was read is kept: a file that has changed since is not read by a recovery.
        """
        loaded = as_bank(bank)
        self._surviving(lambda: self._engine.load_bank(loaded))
        self._bank = loaded

    def close(self) -> None:
        """Close the engine. A second call does nothing."""
        self._is_closed = True
        self._engine.close()

    def __enter__(self) -> RecoveringEngine:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def _surviving(self, call: Callable[[], _Result], *, is_lost: bool = False) -> _Result:
        if self._is_closed:
            raise EngineError("the engine is closed")
        try:
            if is_lost:
                self._open_again()
            return call()
        except DeviceLostError as error:
            self._count(error)
        return self._surviving(call, is_lost=True)

    def _count(self, error: DeviceLostError) -> None:
        """Close the engine, and let the error through where there were too many."""
        self._engine.close()
        now_s = self._clock.monotonic()
        while self._losses_s and now_s - self._losses_s[0] > self._within_s:
            self._losses_s.popleft()
        self._losses_s.append(now_s)
        if len(self._losses_s) > self._attempts:
            raise error
        self._on_recovery(error)

    def _open_again(self) -> None:
        engine = self._open()
        try:
            if self._bank is not None:
                engine.load_bank(self._bank)
        except BaseException:
            engine.close()  # it would judge by the bank that was given first
            raise
        self._engine = engine
