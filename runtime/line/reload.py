"""``SIGHUP``: thresholds, triggers, crops and masks from the file again, while the line runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from patchline.runtime.contract import Manifest
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.line.build import drift_of, rules_of
from patchline.runtime.line.camera import Camera
from patchline.runtime.line.live_controls import LineControls
from patchline.runtime.line.settings import CameraSettings, LineSettings, load_settings

Say = Callable[[str], None]

_FIXED = ("source", "width", "height", "fps", "codec", "latency_ms")
"""What a camera is opened with: another value takes a restart."""


class Reload:
    """Reads the settings file again.

    A file with a mistake in it changes nothing.

    Args:
        path: the TOML file; ``None`` where the line was set up by options.
        settings: as the line was started with.
        cameras: of the line.
        controls: given the new rules.
        manifest: of the product that is looked for at the moment.
        say: told, as a sentence, what was taken over and what was not.
    """

    def __init__(
        self,
        path: Path | None,
        settings: LineSettings,
        cameras: Sequence[Camera],
        controls: LineControls,
        manifest: Callable[[], Manifest],
        say: Say,
    ) -> None:
        self._path, self._settings = path, settings
        self._cameras = {camera.name: camera for camera in cameras}
        self._controls, self._manifest, self._say = controls, manifest, say

    def apply(self) -> None:
        """Read the file, at a moment when no frame is under way."""
        if self._path is None:
            return
        manifest = self._manifest()
        try:
            settings = load_settings(self._path)
            rules = {
                one.name: rules_of(one, manifest)
                for one in settings.cameras
                if one.name in self._cameras
            }
        except ConfigurationError as error:
            self._say(f"{error}. The settings before go on")
            return
        self._controls.configure(rules)
        self._say(f"{self._path} was read again")
        for sentence in _restart_needed(self._settings, settings):
            self._say(f"{sentence}: that takes a restart")
        has_other_watch = _watch(settings) != _watch(self._settings)
        views = {one.name: _view(one) for one in self._settings.cameras}
        moved = {one.name for one in settings.cameras if views.get(one.name) != _view(one)}
        # What takes a restart is kept as it was, so that it is said again next time.
        cameras = tuple(_opened_as(one, settings) for one in self._settings.cameras)
        self._settings = settings.model_copy(update={"cameras": cameras})
        self.renew_drift(set(self._cameras) if has_other_watch else moved)

    def renew_drift(self, names: Collection[str] | None = None) -> None:
        """Let live cameras compare their scores with the product's from their next frame on.

        Args:
            names: of the cameras; all of them by default.
        """
        for name, camera in self._cameras.items():
            if camera.is_live and (names is None or name in names):
                rules, manifest = camera.rules, self._manifest()
                camera.decider.set_drift(drift_of(self._settings, manifest, rules, self._say))


def _restart_needed(before: LineSettings, after: LineSettings) -> list[str]:
    old = {one.name: one for one in before.cameras}
    new = {one.name: one for one in after.cameras}
    sentences = [f"camera {name} is new" for name in new if name not in old]
    sentences += [f"camera {name} is gone from the file" for name in old if name not in new]
    for name in old.keys() & new.keys():
        changed = [field for field in _FIXED if _differs(old[name], new[name], field)]
        if changed:
            sentences.append(f"camera {name} has another {', '.join(changed)}")
    return sorted(sentences)


def _differs(one: CameraSettings, other: CameraSettings, field: str) -> bool:
    return bool(getattr(one, field) != getattr(other, field))


def _opened_as(before: CameraSettings, after: LineSettings) -> CameraSettings:
    """The camera as it was opened, with the rules that it has now."""
    for one in after.cameras:
        if one.name == before.name:
            return one.model_copy(update={field: getattr(before, field) for field in _FIXED})
    return before


def _view(settings: CameraSettings) -> tuple[object, ...]:
    """What part of the picture is scored: scores of another part do not compare."""
    return settings.crop, settings.flip, settings.mask


def _watch(settings: LineSettings) -> tuple[str, int]:
    return settings.drift, settings.drift_window
