"""``run-camera``: judge what cameras, streams, videos or folders show, frame by frame."""

from __future__ import annotations

from patchline.runtime.cli import camera_options as options
from patchline.runtime.cli.command import Provider, run_command


def run_camera(
    engine: options.EngineFile,
    source: options.Sources = None,
    config: options.Config = None,
    width: options.Width = None,
    height: options.Height = None,
    fps: options.Fps = None,
    codec: options.CodecOption = None,
    latency: options.LatencyMs = None,
    flip: options.FlipOption = None,
    crop: options.Crop = None,
    mask: options.MaskFile = None,
    threshold: options.ThresholdOption = None,
    trigger: options.TriggerOption = None,
    drift: options.DriftOption = None,
    reconnect_limit: options.ReconnectLimit = None,
    skip_unreadable: options.SkipUnreadable = False,
    max_frames: options.MaxFrames = None,
    headless: options.Headless = False,
    output: options.AnnotatedOutput = None,
    printed: options.Print = options.Lines.FRAMES,
    log: options.LogFile = None,
    log_size: options.LogSize = None,
    log_files: options.LogFiles = None,
    store: options.Store = None,
    store_every: options.StoreEvery = None,
    store_size: options.StoreSize = None,
    store_days: options.StoreDays = None,
    mqtt: options.Mqtt = None,
    webhook: options.Webhook = None,
    webhook_picture: options.WebhookPicture = False,
    metrics: options.Metrics = None,
    output_hook: options.Hooks = None,
    output_option: options.HookOptions = None,
    dashboard: options.DashboardOption = False,
    host: options.Host = None,
    port: options.Port = None,
    token: options.Token = None,
    name: options.LineName = "line1",
    state: options.StateFolder = None,
    bank: options.BankFile = None,
    provider: options.ProviderName = Provider.AUTO,
    threads: options.Threads = None,
    device: options.DeviceIndex = None,
    flavour: options.Flavour = None,
    no_build: options.NoBuild = False,
    no_cuda_graph: options.NoCudaGraph = False,
) -> None:
    """Judge frames: JSON lines on stdout, all else on stderr.

    A live camera that is lost is opened again for ever. Ctrl-C, SIGTERM and q in the live view end
    it with a summary.
    """
    from patchline.runtime.camera.native_logs import silence_native_logs

    silence_native_logs()  # before the first import of cv2

    from patchline.runtime.cli.camera_engine import EngineOptions
    from patchline.runtime.cli.camera_line import LineOptions, run_line
    from patchline.runtime.cli.camera_output_options import OutputOptions, state_folder
    from patchline.runtime.cli.camera_page import PageOptions
    from patchline.runtime.cli.camera_settings import line_settings
    from patchline.runtime.cli.camera_unused import check_name, check_used

    given = {
        "width": width,
        "height": height,
        "fps": fps,
        "codec": codec,
        "latency_ms": latency,
        "flip": flip,
        "crop": crop,
        "mask": mask,
        "threshold": threshold,
        "trigger": trigger,
        "drift": drift,
    }
    check_name(name)
    settings = line_settings(config, source or [], given)
    folder = state_folder(state, name)
    outputs = OutputOptions(
        line=name,
        state=folder,
        printed=printed.value,
        has_window=not headless,
        annotated=output,
        log=log,
        log_size=log_size,
        log_files=log_files,
        store=store,
        store_every=store_every,
        store_size=store_size,
        store_days=store_days,
        mqtt=mqtt,
        webhook=webhook,
        webhook_picture=webhook_picture,
        hooks=output_hook or [],
        hook_options=output_option or [],
    )
    page = PageOptions(dashboard, host, port, token, metrics)
    line = LineOptions(config, folder, max_frames, reconnect_limit, skip_unreadable)
    check_used(outputs, page)
    run_line(
        settings,
        EngineOptions(engine, bank, provider, threads, device, flavour, no_build, no_cuda_graph),
        outputs,
        page,
        line,
    )


def main() -> None:
    """Entry point of ``run-camera``."""
    run_command(run_camera)


if __name__ == "__main__":
    main()
