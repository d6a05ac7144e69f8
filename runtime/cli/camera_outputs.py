"""The outputs of ``run-camera``: which were asked for, each behind a queue of its own."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchline.runtime.byte_size import parse_bytes
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

WEBHOOK_TOKEN = "PATCHLINE_WEBHOOK_TOKEN"
"""Environment variable: sent as a bearer token, so that it stands in no list of processes."""

PRINTED = {
    "frames": ("frame",),
    "events": ("event", "state"),
    "all": ("frame", "event", "state"),
}
"""Kinds of JSON lines by what ``--print`` says."""


@dataclass(frozen=True)
class OutputOptions:
    """What was asked for; ``None`` where it was not.

    Attributes:
        line: name of the line.
        state: folder of what must survive a restart.
        printed: ``frames``, ``events`` or ``all`` on stdout.
        has_window: whether a live view is shown.
        annotated: video or folder for annotated frames.
        log: file for all JSON lines.
        log_size: of one such file, as ``100M``.
        log_files: how many are kept.
        store: folder for pictures of anomalous frames.
        store_every: keep every so many good frames, too.
        store_size: of the whole folder.
        store_days: age at which pictures go.
        mqtt: address of the broker.
        webhook: address that events are posted to.
        webhook_picture: whether the annotated picture goes along.
        hooks: ``module:factory`` of outputs of the user's own.
        hook_options: ``NAME=VALUE`` for their factories.
    """

    line: str
    state: Path
    printed: str = "frames"
    has_window: bool = False
    annotated: Path | None = None
    log: Path | None = None
    log_size: str = "100M"
    log_files: int = 10
    store: Path | None = None
    store_every: int | None = None
    store_size: str = "10G"
    store_days: float = 30.0
    mqtt: str | None = None
    webhook: str | None = None
    webhook_picture: bool = False
    hooks: Sequence[str] = ()
    hook_options: Sequence[str] = ()


def state_folder(given: Path | None, line: str) -> Path:
    """Where a line keeps what must survive a restart; nothing is made there yet.

    Args:
        given: ``--state``; otherwise systemd's ``StateDirectory``, or the user's own folder.
        line: name of the line.
    """
    if given is not None:
        return given
    of_service = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if of_service:
        return Path(of_service)
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "patchline" / line


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
            queued.append(one)
        live = _live_view() if page.has_page else None
        on_failure.pop_all()
    return FanOut(queued, [] if live is None else [live], is_live=is_live), live


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

        log = RotatedLog(asked.log, parse_bytes(asked.log_size, "--log-size"), asked.log_files)
        yield LogFile(log, str(asked.log))
    if asked.store is not None:
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


def _store(asked: OutputOptions, folder: Path) -> Output:
    from patchline.runtime.outputs.image_store import ImageStore, StoreSettings

    return ImageStore(
        folder,
        StoreSettings(
            good_every=asked.store_every or 0,
            most_bytes=parse_bytes(asked.store_size, "--store-size"),
            most_days=asked.store_days,
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
    from patchline.runtime.outputs.metrics import MetricsOutput, MetricsServer

    output = MetricsOutput(controls.cameras, lambda: tuple(queued))
    server = MetricsServer(output, *_address(address))
    stderr_console().print(f"metrics    {server.url}", markup=False, soft_wrap=True)
    return output


def _address(text: str) -> tuple[str, int]:
    from patchline.runtime.errors import ConfigurationError

    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(f"--metrics {text}: expected [HOST:]PORT, such as 9750")
    return host.strip("[]") or "127.0.0.1", int(port)


def _live_view() -> LiveView:
    from patchline.runtime.dashboard.live import LiveView

    return LiveView()


def _tell(name: str, sentence: str) -> None:
    print_warning(sentence if name in sentence else f"{name}: {sentence}")
