"""The cameras of a line, made from its settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from patchline.runtime.camera.adjust import Adjustment, Box
from patchline.runtime.camera.backoff import ReconnectLimits
from patchline.runtime.camera.open import is_live_address, open_source
from patchline.runtime.camera.options import Flip, SourceOptions
from patchline.runtime.camera.pictures import OnUnreadable
from patchline.runtime.camera.source import FrameSource
from patchline.runtime.camera.states import OnState
from patchline.runtime.clock import SYSTEM_CLOCK, Clock
from patchline.runtime.contract import Manifest
from patchline.runtime.decisions.decider import Decider
from patchline.runtime.decisions.drift import Drift, watch_drift
from patchline.runtime.decisions.mask import check_score, load_mask
from patchline.runtime.line.camera import Camera, Rules
from patchline.runtime.line.settings import CameraSettings, LineSettings


@dataclass(frozen=True)
class Surroundings:
    """What the cameras of a line share.

    Attributes:
        changed: notified at each frame and state.
        on_state: told of each change of state.
        say: told, as a sentence, of what cannot be had and is done without.
        on_unreadable: skips pictures that cannot be read, and is told of each.
        limits: of reopening.
        clock: for times.
    """

    changed: threading.Condition
    on_state: OnState
    say: Callable[[str], None]
    on_unreadable: OnUnreadable | None = None
    limits: ReconnectLimits = field(default_factory=ReconnectLimits)
    clock: Clock = SYSTEM_CLOCK


def build_cameras(
    settings: LineSettings, manifest: Manifest, surroundings: Surroundings
) -> list[Camera]:
    """Make the cameras; none is opened yet.

    Raises:
        ConfigurationError: a source of an unknown kind, an option it has no use for, a mask that
            cannot be read or used.
    """
    reasons: dict[str, None] = {}
    cameras = [
        _build(one, settings, manifest, surroundings, reasons.setdefault)
        for one in settings.cameras
    ]
    for reason in reasons:  # each once, however many cameras it holds for
        surroundings.say(reason)
    return cameras


def rules_of(settings: CameraSettings, manifest: Manifest) -> Rules:
    """How a camera judges, by its settings.

    Raises:
        ConfigurationError: the mask cannot be read, or not be used with the model's score.
    """
    crop = None if settings.crop is None else Box(*settings.crop)
    mask = None if settings.mask is None else load_mask(settings.mask)
    if mask is not None:
        check_score(manifest.score, mask)
    return Rules(
        adjustment=Adjustment(crop, Flip(settings.flip.value)),
        mask=mask,
        threshold=settings.threshold,
        trigger=settings.trigger,
    )


def drift_of(
    settings: LineSettings, manifest: Manifest, rules: Rules, say: Callable[[str], object]
) -> Drift | None:
    """What watches a camera's scores, if anything does; ``say`` is told why not."""
    if settings.drift == "off":
        return None
    has_mask = rules.mask is not None
    return watch_drift(manifest.normal_scores, settings.drift_window, has_mask=has_mask, say=say)


def source_options(settings: CameraSettings) -> SourceOptions:
    """What is asked of the camera."""
    return SourceOptions(
        width=settings.width,
        height=settings.height,
        fps=settings.fps,
        codec=settings.codec,
        latency_ms=settings.latency_ms,
    )


def _build(
    settings: CameraSettings,
    line: LineSettings,
    manifest: Manifest,
    surroundings: Surroundings,
    say: Callable[[str], object],
) -> Camera:
    rules = rules_of(settings, manifest)
    is_live = is_live_address(settings.source)
    # Pictures of a folder are no line: they may be sorted by defect.
    drift = drift_of(line, manifest, rules, say) if is_live else None
    return Camera(
        settings.name,
        settings.shown_source,
        _opener(settings, surroundings),
        is_live=is_live,
        size=manifest.model_size,
        decider=Decider(settings.name, trigger=rules.trigger, drift=drift),
        changed=surroundings.changed,
        on_state=surroundings.on_state,
        rules=rules,
        limits=surroundings.limits,
        # A generated camera may have a last frame; any other was lost.
        may_end=settings.source.startswith("test:"),
        clock=surroundings.clock,
    )


def _opener(settings: CameraSettings, surroundings: Surroundings) -> Callable[[], FrameSource]:
    options = source_options(settings)
    return lambda: open_source(
        settings.source,
        options=options,
        on_unreadable=surroundings.on_unreadable,
        clock=surroundings.clock,
    )
