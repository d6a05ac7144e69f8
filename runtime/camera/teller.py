"""Keeps a camera's state and tells of its changes: each once, in order, outside all locks."""

from __future__ import annotations

import threading
from collections import deque

from patchline.runtime.camera.states import OnState, StateChange, StreamState
from patchline.runtime.clock import Clock


class StateTeller:
    """The state of one camera.

    Args:
        camera: its name.
        on_state: told of each change.
        clock: for the time of a change.
    """

    def __init__(self, camera: str, on_state: OnState, clock: Clock) -> None:
        self._camera, self._on_state, self._clock = camera, on_state, clock
        self._untold: deque[StateChange] = deque()
        self._telling = threading.RLock()
        self._latest = self._change(StreamState.CONNECTING, "")

    @property
    def state(self) -> StreamState:
        """The state as it is now."""
        return self._latest.state

    @property
    def detail(self) -> str:
        """Why, as a sentence; may be empty."""
        return self._latest.detail

    @property
    def has_untold(self) -> bool:
        """Whether :meth:`tell` has something to tell."""
        return bool(self._untold)

    def set(self, state: StreamState, detail: str = "", *, is_news: bool = False) -> None:
        """Go into a state; a lock of the caller's keeps two of these apart.

        The detail of the same state is replaced without telling, unless it ``is_news``: a camera
        that cannot be reached for a week is one change and not twenty thousand.
        """
        has_changed = state is not self._latest.state
        self._latest = self._change(state, detail)
        if has_changed or is_news:
            self._untold.append(self._latest)

    def tell(self) -> None:
        """Tell what has not been told; the caller holds no lock."""
        with self._telling:
            while self._untold:
                self._on_state(self._untold.popleft())

    def _change(self, state: StreamState, detail: str) -> StateChange:
        return StateChange(self._camera, state, self._clock.now(), detail)
