"""The outputs of ``run-camera``: which were asked for, each behind a queue of its own."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchline.runtime.byte_size import parse_bytes
from patchline.runtime.cli.camera_output_options import OutputOptions
from patchline.runtime.cli.camera_page import PageOptions
from patchline.runtime.cli.command import print_warning, stderr_console

if TYPE_CHECKING:
    from patchline.runtime.dashboard.live import LiveView
    from patchline.runtime.line.fan_out import FanOut
    from patchline.runtime.line.live_controls import LineControls
    from patchline.runtime.line.material import CameraMaterial
    from patchline.runtime.outputs.base import Output
    from patchline.runtime.outputs.outbox import Outbox
    from patchline.runtime.outputs.queued import QueuedOutput

LIVE_QUEUE, FILE_QUEUE = 32, 8
"""Records that wait for one output; each frame holds its picture and maps."""

LOG_SIZE, LOG_FILES, STORE_SIZE, STORE_DAYS = "100M", 10, "10G", 30.0
"""Where nothing else is asked for; the options' help says so, too."""

WEBHOOK_TOKEN = "PATCHLINE_WEBHOOK_TOKEN"
"""Environment variable: sent as a bearer token, so that it stands in no list of processes."""

_IS_PLACE = re.compile(r"[/:.]")

PRINTED = {
    "frames": ("frame",),
    "events": ("event", "state"),
    "all": ("frame", "event", "state"),
}
"""Kinds of JSON lines by what ``--print`` says."""


def open_outputs(
    asked: OutputOptions,
    page: PageOptions,
    cameras: Mapping[str, CameraMaterial],
    controls: LineControls,
    stop: threading.Event,
) -> tuple[FanOut, LiveView | None]:
    """Open every output that was asked for, and the page's view of the line.

    Args:
        asked: which.
        page: whether there is a page or metrics.
        cameras: what is known of each, by name.
        controls: for the metrics.
        stop: set by the window.

    Raises:
        ConfigurationError: there can be no window here, or an address or path cannot be.
        MissingExtraError: an output needs a package that is not installed.
        WriteError: an output cannot be written.
    """
    from patchline.runtime.line.fan_out import FanOut
    from patchline.runtime.outputs.queued import QueuedOutput

    is_live = any(camera.is_live for camera in cameras.values())
    queued: list[QueuedOutput] = []
    with contextlib.ExitStack() as on_failure:
        for output in _asked_for(asked, page, cameras, controls, stop, queued):
            size = LIVE_QUEUE if is_live else FILE_QUEUE
            one = QueuedOutput(output, size=size, is_lossless=not is_live, on_failure=_tell)
            on_failure.callback(one.close)
            _check_own_name(one, queued)
            queued.append(one)
        live = _live_view() if page.has_page else None
        on_failure.pop_all()
    return FanOut(queued, [] if live is None else [live], is_live=is_live), live


def _check_own_name(output: QueuedOutput, others: Sequence[QueuedOutput]) -> None:
    from patchline.runtime.errors import ConfigurationError

    if any(output.name == other.name for other in others):
        raise ConfigurationError(
            f"two outputs are called {output.name!r}: give each its own, by which messages and "
            "metrics tell them apart"
        )


def _asked_for(
    asked: OutputOptions,
    page: PageOptions,
    cameras: Mapping[str, CameraMaterial],
    controls: LineControls,
    stop: threading.Event,
    queued: list[QueuedOutput],
) -> Iterator[Output]:
    from patchline.runtime.outputs.jsonl import JsonLines

    yield JsonLines(sys.stdout, kinds=PRINTED[asked.printed])
    if asked.has_window:
        from patchline.runtime.outputs.window import Window

        yield Window(stop)
    if asked.annotated is not None:
        from patchline.runtime.outputs.annotated import open_annotated_outputs

        yield open_annotated_outputs(asked.annotated, cameras)
    if asked.log is not None:
        from patchline.runtime.outputs.log import LogFile, RotatedLog

        _check_apart(asked.log, cameras, "--log")
        size = parse_bytes(asked.log_size or LOG_SIZE, "--log-size")
        log = RotatedLog(asked.log, size, asked.log_files or LOG_FILES)
        yield LogFile(log, str(asked.log))
    if asked.store is not None:
        _check_apart(asked.store, cameras, "--store")
        yield _store(asked, asked.store)
    if asked.mqtt is not None:
        yield _mqtt(asked, asked.mqtt)
    if asked.webhook is not None:
        yield _webhook(asked, asked.webhook)
    if page.metrics is not None:
        yield _metrics(page.metrics, controls, queued)
    for hook in asked.hooks:
        from patchline.runtime.outputs.hook import load_hook, parse_options

        yield load_hook(hook, parse_options(list(asked.hook_options)))


def _check_apart(path: Path, cameras: Mapping[str, CameraMaterial], option: str) -> None:
    from patchline.runtime.outputs.annotated import check_apart

    for camera in cameras.values():
        check_apart(path, camera, option)


def _store(asked: OutputOptions, folder: Path) -> Output:
    from patchline.runtime.outputs.image_store import ImageStore, StoreSettings

    return ImageStore(
        folder,
        StoreSettings(
            good_every=asked.store_every or 0,
            most_bytes=parse_bytes(asked.store_size or STORE_SIZE, "--store-size"),
            most_days=STORE_DAYS if asked.store_days is None else asked.store_days,
        ),
    )


def _mqtt(asked: OutputOptions, url: str) -> Output:
    from patchline.runtime.outputs.mqtt import MqttOutput

    outbox = _outbox(asked.state / "mqtt.outbox")
    return MqttOutput(url, line=asked.line, outbox=outbox, on_failure=_tell)


def _webhook(asked: OutputOptions, url: str) -> Output:
    from patchline.runtime.outputs.webhook import WebhookOutput

    outbox = _outbox(asked.state / "webhook.outbox")
    token = os.environ.get(WEBHOOK_TOKEN)
    return WebhookOutput(
        url, outbox=outbox, token=token, has_picture=asked.webhook_picture, on_failure=_tell
    )


def _outbox(path: Path) -> Outbox:
    from patchline.runtime.outputs.outbox import Outbox

    outbox = Outbox(path)
    if outbox.set_aside is not None:
        print_warning(f"{path} is damaged; it now lies at {outbox.set_aside}")
    return outbox


def _metrics(address: str, controls: LineControls, queued: list[QueuedOutput]) -> Output:
    from patchline.runtime.dashboard.address import parse_address
    from patchline.runtime.outputs.metrics import MetricsOutput, MetricsServer

    output = MetricsOutput(controls.cameras, lambda: tuple(queued))
    server = MetricsServer(output, *parse_address(address, "--metrics"))
    stderr_console().print(f"metrics    {server.url}", markup=False, soft_wrap=True)
    return output


def _live_view() -> LiveView:
    from patchline.runtime.dashboard.live import LiveView

    return LiveView()


def _tell(name: str, sentence: str) -> None:
    # A path or an address stands somewhere in its sentence; any other name could be a word of it.
    is_named = sentence.startswith(name) or (_IS_PLACE.search(name) and name in sentence)
    print_warning(sentence if is_named else f"{name}: {sentence}")
