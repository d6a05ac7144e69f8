"""The line of ``run-camera``: engine, cameras, outputs and page, put together and run."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchline.runtime.cli.camera_engine import EngineOptions, open_camera_engine
from patchline.runtime.cli.camera_output_options import OutputOptions
from patchline.runtime.cli.camera_outputs import open_outputs
from patchline.runtime.cli.camera_page import PageOptions, served_page
from patchline.runtime.cli.camera_report import Announcer, print_bank, print_head, print_summary
from patchline.runtime.cli.camera_unused import check_sources
from patchline.runtime.cli.camera_watch import watched
from patchline.runtime.cli.command import EXIT_ERROR, print_error, print_warning
from patchline.runtime.cli.signals import Hangup, call_on_hangup, stop_on_signals

if TYPE_CHECKING:
    from patchline.runtime.contract import Manifest
    from patchline.runtime.engine import Engine
    from patchline.runtime.errors import ImageReadError
    from patchline.runtime.line.camera import Camera
    from patchline.runtime.line.fan_out import FanOut
    from patchline.runtime.line.inspection import Inspection
    from patchline.runtime.line.live_controls import LineControls
    from patchline.runtime.line.settings import LineSettings


@dataclass(frozen=True)
class LineOptions:
    """What else was asked for.

    Attributes:
        config: the settings file, read again at SIGHUP.
        state: folder of what must survive a restart.
        max_frames: end after so many judged frames.
        reconnect_limit: give a camera up after so many attempts in a row.
        skips_unreadable: whether pictures that cannot be read are left out.
    """

    config: Path | None
    state: Path
    max_frames: int | None = None
    reconnect_limit: int | None = None
    skips_unreadable: bool = False


def run_line(
    settings: LineSettings,
    engine_options: EngineOptions,
    output_options: OutputOptions,
    page: PageOptions,
    options: LineOptions,
) -> None:
    """Judge until the cameras end or a signal comes, and print what was seen.

    Raises:
        PatchlineError: as the parts do; see :meth:`Inspection.run`.
        Exit: with status 1 where an output is not complete.
    """
    from patchline.runtime.line.inspection import Inspection
    from patchline.runtime.line.material import material_of
    from patchline.runtime.line.systemd import Systemd
    from patchline.runtime.line.watchdog import Heartbeat

    logging.basicConfig(format="warning: %(message)s")
    stop, hangup, changed = threading.Event(), Hangup(), threading.Condition()
    with contextlib.ExitStack() as open_until_the_end:
        enter = open_until_the_end.enter_context
        if engine_options.bank is not None or options.config is not None:
            enter(call_on_hangup(hangup.request))  # also while the engine opens
        # First of all: a path that is mistyped need not wait for the engine.
        material = {one.name: material_of(one) for one in settings.cameras}
        check_sources(material.values(), options)
        engine = enter(open_camera_engine(engine_options))
        announcer = Announcer()
        announcer.is_line = len(settings.cameras) > 1
        cameras = _build(settings, engine.manifest, announcer, changed, options)
        controls = _controls(cameras, engine, options, has_page=page.has_page)
        outputs, live = open_outputs(output_options, page, material, controls, stop)
        open_until_the_end.callback(outputs.close)
        announcer.outputs = outputs
        systemd = Systemd()
        hangup.then(systemd.reloading)
        _connect(hangup, engine, engine_options.bank, settings, cameras, controls, options)
        hangup.then(systemd.ready)
        print_head(engine, cameras)
        _warm_up(engine, len(cameras))
        heartbeat = Heartbeat()
        inspection = Inspection(
            cameras,
            engine,
            outputs,
            changed=changed,
            max_frames=options.max_frames,
            stop=stop,
            between_frames=hangup.apply,
            heartbeat=heartbeat,
        )
        enter(served_page(live, controls, page))
        enter(watched(cameras, outputs, heartbeat, systemd, stop))
        _run(inspection, cameras, outputs, stop)


def _build(
    settings: LineSettings,
    manifest: Manifest,
    announcer: Announcer,
    changed: threading.Condition,
    options: LineOptions,
) -> list[Camera]:
    from patchline.runtime.camera.backoff import ReconnectLimits
    from patchline.runtime.line.build import Surroundings, build_cameras

    surroundings = Surroundings(
        changed=changed,
        on_state=announcer.announce,
        say=print_warning,
        on_unreadable=_warn_of_skipped if options.skips_unreadable else None,
        limits=ReconnectLimits(attempts=options.reconnect_limit),
    )
    return build_cameras(settings, manifest, surroundings)


def _controls(
    cameras: Sequence[Camera], engine: Engine, options: LineOptions, *, has_page: bool
) -> LineControls:
    from patchline.runtime.line.live_controls import LineControls
    from patchline.runtime.line.overrides import Overrides

    # Without a page nothing is set by hand; what was set in an earlier run still holds.
    overrides = Overrides(options.state / "overrides.json", print_warning)
    if has_page:
        from patchline.runtime.files import check_writable

        check_writable(options.state)
    return LineControls(cameras, lambda: engine.manifest, overrides)


def _connect(
    hangup: Hangup,
    engine: Engine,
    bank: Path | None,
    settings: LineSettings,
    cameras: Sequence[Camera],
    controls: LineControls,
    options: LineOptions,
) -> None:
    """Say what SIGHUP changes: the product first, then the rules of the cameras."""
    from patchline.runtime.bank_switch import BankSwitch
    from patchline.runtime.line.reload import Reload

    reload = Reload(
        options.config, settings, cameras, controls, lambda: engine.manifest, print_warning
    )

    def switched(manifest: Manifest) -> None:
        controls.apply()
        reload.renew_drift()
        print_bank(bank, manifest, cameras)

    if bank is not None:
        switch = BankSwitch(
            bank,
            on_switched=switched,
            on_refused=lambda error: print_warning(f"{error}. The bank before goes on"),
        )
        hangup.then(switch.request)
        hangup.then(lambda: switch.apply(engine))
    hangup.then(reload.apply)


def _warm_up(engine: Engine, most_frames: int) -> None:
    # The first inference of each batch size allocates: it would be a live line's slowest frame.
    import numpy as np

    size = engine.manifest.model_size
    for batch in range(1, most_frames + 1):
        engine.infer(np.zeros((batch, size.height, size.width, 3), np.uint8))


def _run(
    inspection: Inspection, cameras: Sequence[Camera], outputs: FanOut, stop: threading.Event
) -> None:
    from patchline.runtime.errors import WriteError

    is_live, is_told = any(camera.is_live for camera in cameras), False
    try:
        with stop_on_signals(stop):
            inspection.run()
    except WriteError:  # of all outputs together: its own sentence says so
        is_told = True
        raise
    finally:
        print_summary(cameras, outputs, inspection.elapsed_s)
        _release_stdout()
        # A line that ran for months has failed if it fails now; a folder must be complete.
        failed = outputs.failing if is_live else outputs.incomplete
        if failed and not is_told:
            print_error(f"not complete: {', '.join(failed)} (see the warnings above)")
    if failed:
        raise typer.Exit(EXIT_ERROR)


def _release_stdout() -> None:
    # What could not be written would be tried again, with a traceback, when Python exits.
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn_of_skipped(error: ImageReadError) -> None:
    print_warning(f"skipped: {error}")
