"""Another product while the line runs: the bank file is read again between two frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from patchline.runtime.contract import Manifest
from patchline.runtime.engine.base import Engine
from patchline.runtime.errors import DeviceLostError, PatchlineError

OnSwitched = Callable[[Manifest], None]
"""Told of the product that is judged from here on."""
OnRefused = Callable[[PatchlineError], None]
"""Told why the bank was not taken; the one before goes on."""


class BankSwitch:
    """Reads a bank file again when it is asked to, at a moment when no frame is under way.

    Args:
        path: the ``.bank`` file; copying another product's over it and asking switches.
        on_switched: told of each switch.
        on_refused: told of each bank that was refused.
    """

    def __init__(self, path: Path, on_switched: OnSwitched, on_refused: OnRefused) -> None:
        self._path = path
        self._on_switched = on_switched
        self._on_refused = on_refused
        self._is_asked = False

    def request(self) -> None:
        """Ask for it; a signal handler may, so that this takes no lock."""
        self._is_asked = True

    def apply(self, engine: Engine) -> None:
        """Load the file into the engine if that was asked for since the last call.

        Raises:
            DeviceLostError: the engine itself is gone.
        """
        if not self._is_asked:
            return
        self._is_asked = False  # before the file is read: who asks now has written it after that
        try:
            engine.load_bank(self._path)
        except DeviceLostError:
            raise
        except PatchlineError as error:
            self._on_refused(error)
        else:
            self._on_switched(engine.manifest)
