"""The options of ``run-camera``, by what they are about; the command lists them one to a line."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import Annotated

import typer

from patchline.runtime.camera.options import Codec, Flip
from patchline.runtime.cli.command import FlavourName, Provider


class Lines(str, enum.Enum):
    """What is printed on stdout as JSON lines."""

    FRAMES = "frames"
    EVENTS = "events"
    ALL = "all"


class DriftName(str, enum.Enum):
    """Whether the scores of the line are watched."""

    AUTO = "auto"
    OFF = "off"


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


EngineFile = Annotated[
    Path, typer.Option(help="Exported model (.onnx) or its TensorRT plan (.trt), with .json.")
]
BankFile = Annotated[
    Path | None,
    typer.Option(help="A product's .bank file, for a model without one; SIGHUP reads it again."),
]
ProviderName = Annotated[Provider, typer.Option(help="Where ONNX Runtime computes.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=256, help="CPU threads per inference; all by default.")
]
DeviceIndex = Annotated[
    int | None, typer.Option(min=0, help="Index of the GPU that runs a plan; 0 by default.")
]
Flavour = Annotated[
    FlavourName | None, typer.Option(help="Which TensorRT; what is installed by default.")
]
NoBuild = Annotated[bool, typer.Option("--no-build", help="A plan that does not fit is an error.")]
NoCudaGraph = Annotated[bool, typer.Option("--no-cuda-graph", help="Launch kernels one by one.")]

Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="URI",
        help="Folder, picture, glob, video, /dev/video0, csi://0, rtsp://, http://, gst:// or "
        "test://; once per camera.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(help="TOML file with the cameras, instead of --source; SIGHUP reads it again."),
]
Width = Annotated[int | None, typer.Option(min=1, help="Of the camera's frames, in pixels.")]
Height = Annotated[int | None, typer.Option(min=1, help="Likewise.")]
Fps = Annotated[float | None, typer.Option(min=0.01, help="Frames per second of the camera.")]
CodecOption = Annotated[Codec | None, typer.Option("--codec", help="Of a stream or USB camera.")]
LatencyMs = Annotated[
    int | None,
    typer.Option("--latency", min=0, help="Milliseconds a stream is held back against jitter."),
]
FlipOption = Annotated[
    Flip | None, typer.Option("--flip", help="Turn the picture over, before any crop.")
]
Crop = Annotated[
    str | None, typer.Option(metavar="X,Y,W,H", help="Part that is judged, in pixels.")
]
MaskFile = Annotated[
    Path | None, typer.Option("--mask", help="Picture that is white where the part is inspected.")
]
ReconnectLimit = Annotated[
    int | None,
    typer.Option(
        min=0, help="Give a lost camera up after so many attempts in a row; never by default."
    ),
]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out pictures that cannot be read.")
]
MaxFrames = Annotated[int | None, typer.Option(min=1, help="End after so many judged frames.")]

ThresholdOption = Annotated[
    float | None,
    typer.Option("--threshold", callback=_finite, help="Decide by this, not the manifest's."),
]
TriggerOption = Annotated[
    str | None,
    typer.Option("--trigger", metavar="N/M", help="Event at N of M anomalous frames.  [1/1]"),
]
DriftOption = Annotated[
    DriftName | None, typer.Option("--drift", help="Watch for a steady shift of the scores.")
]

Headless = Annotated[bool, typer.Option("--headless", help="No live view.")]
AnnotatedOutput = Annotated[
    Path | None,
    typer.Option("--output", help="Annotated frames: a video (.mp4, .avi, .mkv) or a folder."),
]
Print = Annotated[Lines, typer.Option("--print", help="What stdout gets as JSON lines.")]
LogFile = Annotated[Path | None, typer.Option("--log", help="File for all JSON lines, rotated.")]
LogSize = Annotated[str | None, typer.Option(help="Of one such file.  [100M]")]
LogFiles = Annotated[int | None, typer.Option(min=2, help="How many are kept.  [10]")]
Store = Annotated[Path | None, typer.Option(help="Folder for the pictures of anomalous frames.")]
StoreEvery = Annotated[int | None, typer.Option(min=1, help="Keep every so many good frames, too.")]
StoreSize = Annotated[str | None, typer.Option(help="Of the folder; the oldest go.  [10G]")]
StoreDays = Annotated[
    float | None,
    typer.Option(min=0.001, callback=_finite, help="Age at which pictures go.  [30]"),
]
Mqtt = Annotated[
    str | None,
    typer.Option(
        metavar="URL", envvar="PATCHLINE_MQTT", help="Broker: mqtt://host:1883/prefix, mqtts://…"
    ),
]
Webhook = Annotated[
    str | None,
    typer.Option(metavar="URL", envvar="PATCHLINE_WEBHOOK", help="Gets each event as a JSON POST."),
]
Metrics = Annotated[
    str | None, typer.Option(metavar="[HOST:]PORT", help="Serve Prometheus' /metrics there.")
]
Hooks = Annotated[
    list[str] | None,
    typer.Option("--output-hook", metavar="MODULE:FACTORY", help="Your own output; repeatable."),
]

HookOptions = Annotated[
    list[str] | None,
    typer.Option("--output-option", metavar="NAME=VALUE", help="For the factory; repeatable."),
]
WebhookPicture = Annotated[
    bool, typer.Option("--webhook-picture", help="Send the annotated picture along.")
]

DashboardOption = Annotated[bool, typer.Option("--dashboard", help="Serve the live page.")]
Host = Annotated[
    str | None,
    typer.Option(help="Address of the page; beyond loopback it takes --token.  [127.0.0.1]"),
]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the page.  [8765]")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="PATCHLINE_TOKEN", help="Demanded by the page; better given by the environment."
    ),
]
LineName = Annotated[
    str, typer.Option("--name", help="Of this line, in topics and the folder of its state.")
]
StateFolder = Annotated[
    Path | None,
    typer.Option("--state", help="Folder for what must survive a restart."),
]
