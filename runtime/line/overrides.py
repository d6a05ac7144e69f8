"""What was set while the line ran, kept for its next start: thresholds and triggers per camera."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.files import write_atomically

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_TriggerText = Annotated[str, AfterValidator(lambda text: str(Trigger.parse(text)))]


class _Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Threshold(_Section):
    value: _Finite
    instead_of: _Finite


class _Trigger(_Section):
    value: _TriggerText
    instead_of: _TriggerText


class _Camera(_Section):
    threshold: _Threshold | None = None
    trigger: _Trigger | None = None


_FILE = TypeAdapter(dict[str, _Camera])


class Overrides:
    """The thresholds and triggers that were set by hand, in a small JSON file.

    One holds only while the configured value, of the settings or of the model, is still the one
    that it replaced: who configures anew means what is configured. All methods may be called from
    any thread.

    Args:
        path: the file; it need not exist. A damaged one is set aside as ``NAME.damaged``.
        say: told, as a sentence, of what is dropped and of a damaged file.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say = path, say
        self._lock = threading.Lock()
        self._cameras = self._load()

    def threshold(self, camera: str, configured: float) -> float | None:
        """The threshold that was set for a camera; ``None`` where the configured one holds.

        Args:
            camera: its name.
            configured: of the settings or, without one there, of the model.
        """
        kept = self._of(camera).threshold
        if kept is None or kept.instead_of == configured:
            return None if kept is None else kept.value
        self._drop(camera, "threshold", kept, configured)
        return None

    def trigger(self, camera: str, configured: Trigger) -> Trigger | None:
        """The trigger that was set for a camera; ``None`` where the configured one holds."""
        kept = self._of(camera).trigger
        if kept is None or kept.instead_of == str(configured):
            return None if kept is None else Trigger.parse(kept.value)
        self._drop(camera, "trigger", kept, configured)
        return None

    def set_threshold(self, camera: str, value: float | None, *, instead_of: float) -> None:
        """Keep a threshold for the next start.

        Args:
            camera: its name.
            value: the threshold; ``None`` for the configured one again.
            instead_of: the configured one.

        Raises:
            ConfigurationError: no finite number.
            WriteError: it cannot be saved.
        """
        if not math.isfinite(instead_of if value is None else value):
            raise ConfigurationError(f"the threshold is {value}, expected a finite number")
        kept = None if value is None else _Threshold(value=value, instead_of=instead_of)
        self._set(camera, threshold=kept)

    def set_trigger(self, camera: str, value: Trigger | None, *, instead_of: Trigger) -> None:
        """Keep a trigger for the next start; see :meth:`set_threshold`.

        Raises:
            WriteError: it cannot be saved.
        """
        kept = None if value is None else _Trigger(value=str(value), instead_of=str(instead_of))
        self._set(camera, trigger=kept)

    def _of(self, camera: str) -> _Camera:
        with self._lock:
            return self._cameras.get(camera, _Camera())

    def _set(self, camera: str, **change: _Threshold | _Trigger | None) -> None:
        with self._lock:
            kept = self._cameras.get(camera, _Camera()).model_copy(update=change)
            self._cameras[camera] = kept
            if kept == _Camera():
                del self._cameras[camera]
            # Still within the lock, so that of two writers the later one's file stays.
            write_atomically(self._path, self._document())

    def _document(self) -> bytes:
        cameras = _FILE.dump_python(self._cameras, exclude_none=True)
        return (json.dumps(cameras, indent=2, allow_nan=False) + "\n").encode()

    def _drop(
        self, camera: str, what: str, kept: _Threshold | _Trigger, configured: object
    ) -> None:
        self._say(
            f"camera {camera}: the {what} {kept.value} that was set by hand is dropped, because "
            f"the configured one was {kept.instead_of} then and is {configured} now"
        )
        try:
            self._set(camera, **{what: None})
        except WriteError as error:
            self._say(f"camera {camera}: {error}")

    def _load(self) -> dict[str, _Camera]:
        try:
            return _FILE.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            self._set_aside("cannot be read" if isinstance(error, OSError) else "is damaged")
            return {}

    def _set_aside(self, why: str) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        try:
            self._path.replace(aside)
            done = f"it now lies at {aside}"
        except OSError as error:
            done = f"it cannot be set aside: {error.strerror}"
        self._say(
            f"{self._path} {why}, so that thresholds and triggers are the configured ones; {done}"
        )
