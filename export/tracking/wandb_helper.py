"""W&B's helper process, which is waited for at the end of ours, and which may hang."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import Any


def limit_exit(seconds: float) -> None:
    """See to it that the helper holds up the end of this process for so long at most.

    wandb gives up by itself after its ``finish_timeout``; this is for the case that it does not.
    What the helper has written by then stays in the run's folder. Until the main thread has ended
    it is left alone: another run may use it.
    """
    threading.Thread(
        target=_end_helper, args=(seconds,), name="patchline tracking: exit", daemon=True
    ).start()


def _end_helper(seconds: float) -> None:
    threading.main_thread().join()  # the hooks that wait for the helper run after it
    time.sleep(seconds)
    # There is no public way to the process; where it is kept elsewhere, nothing is ended.
    with contextlib.suppress(AttributeError, KeyError, OSError):
        setup: Any = sys.modules["wandb"].sdk.wandb_setup
        setup._singleton._connection._proc._process.kill()
