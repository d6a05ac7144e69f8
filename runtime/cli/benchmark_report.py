"""What ``benchmark-engine`` prints for people: how it was measured first, then the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_STATISTICS = ("min", "mean", "median", "p90", "p95", "p99", "max")
_PHASES = {"h2d": "H2D", "compute": "compute", "d2h": "D2H", "enqueue": "enqueue"}
_TRANSFERS = {"counted": "counted", "none": "none, all on the CPU"}
_WAITS = {
    "spin": "idle CPU threads spin (ONNX Runtime's default)",
    "cuda": "CUDA's default (spins, unless contexts outnumber cores; a small Jetson may block)",
    "none": "one CPU thread, nothing waits",
}


def print_benchmark(document: Mapping[str, Any]) -> None:
    """Print the result of one engine on stdout."""
    console = _console()
    _print_lines(console, [*_engine_lines("engine", document), *_frame_lines(document["frames"])])
    _print_lines(console, _machine_lines(document))
    latency = document["latency"]
    console.print(_latency_table(latency))
    missing = [_PHASES[name] for name, found in latency["phases"].items() if found is None]
    if missing:
        line = f"{', '.join(missing)}: not available, {document['mode']['runtime']} does not tell"
        console.print(line, markup=False, soft_wrap=True)
    console.print(_throughput_table(document["throughput"]))


def print_comparison(document: Mapping[str, Any]) -> None:
    """Print the result of two engines on stdout."""
    console = _console()
    for name in ("a", "b"):
        one = document[name]
        lines = _engine_lines(name.upper(), {"engine": one, "mode": one["mode"]})
        _print_lines(console, [*lines, *_frame_lines(one["frames"])])
    _print_lines(console, _machine_lines(document))
    console.print(_compared_table(document))
    console.print(_pairs_table(document))
    ratio, rounds = document["ratio_b_over_a"], document["rounds"]
    word = "faster" if ratio["median"] < 1 else "slower"
    if ratio["median"] == 1:
        word = "neither faster nor slower"
    line = (
        f"B over A: median {ratio['median']:.3f} (quartiles {ratio['q1']:.3f} to "
        f"{ratio['q3']:.3f}); B is {word} in {ratio['pairs_that_agree']} of {rounds} pairs"
    )
    console.print(line, markup=False, soft_wrap=True)


def _engine_lines(title: str, document: Mapping[str, Any]) -> list[tuple[str, str]]:
    engine, mode = document["engine"], document["mode"]
    size = engine["image_size_px"]
    digests = f"sha256 {engine['sha256'][:12]}…"
    if engine["onnx_sha256"] not in (None, engine["sha256"]):
        digests += f", of ONNX file {engine['onnx_sha256'][:12]}…"
    return [
        (title, f"{engine['file']}, {digests}"),
        (
            "model",
            f"{engine['class']}: {engine['backbone']}, {engine['score']}, {engine['precision']}, "
            f"{size[0]} x {size[1]} px, {_bank(engine)}",
        ),
        ("runtime", _runtime(mode)),
        (
            "mode",
            f"CUDA graph {'on' if mode['cuda_graph'] else 'off'}; transfers "
            f"{_TRANSFERS[mode['transfers']]}; wait: {_WAITS[mode['wait']]}",
        ),
    ]


def _bank(engine: Mapping[str, Any]) -> str:
    if engine["bank_rows"] is None:
        return "no memory bank"
    bank = engine["bank"]
    beside = f" in {bank['file']} (sha256 {bank['sha256'][:12]}…)" if bank else ""
    size = f"{engine['bank_rows']:,} x {engine['dimension']}"
    return f"bank {size}{beside}, search {engine['search']}"


def _runtime(mode: Mapping[str, Any]) -> str:
    words = [f"{mode['runtime']} {mode['version']}"]
    if mode["gpu"]:
        words.append(mode["gpu"])
    elif mode["provider"] != mode["runtime"]:
        words.append(mode["provider"])
    if mode["provider"] == "CPUExecutionProvider":
        words.append(f"threads: {mode['threads'] or 'one per core'}")
    return ", ".join(words)


def _frame_lines(frames: Mapping[str, Any]) -> list[tuple[str, str]]:
    if frames["seed"] is None:
        return [("frames", f"{frames['count']} pictures of {frames['source']}")]
    return [("frames", f"{frames['count']} random ones, seed {frames['seed']}")]


def _machine_lines(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine, state = document["machine"], document["state"]["before"]
    words = [f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores"]
    words += machine["gpus"]
    if machine["driver"]:
        words.append(f"driver {machine['driver']}")
    if state["load_1min"] is not None:
        words.append(f"load {state['load_1min']}")
    lines = [("machine", ", ".join(words))]
    jetson = [state["board"], state["l4t"] and f"L4T {state['l4t']}"]
    jetson.append(state["power_mode"] and f"power mode {state['power_mode']}")
    if any(jetson):
        lines.append(("board", ", ".join(word for word in jetson if word)))
    clocks = [
        f"{what} {_clock(document, key)}"
        for what, key in (("CPU", "cpus"), ("GPU", "gpus"))
        if state[key]
    ]
    lines.append(("clocks", "; ".join(clocks) or "not told by this machine"))
    settings = document["settings"]
    limits = (
        f"{settings['warm_up_ms']:g} ms of warm-up, then at least {settings['iterations']} calls "
        f"and {settings['duration_s']:g} s"
    )
    version = machine["packages"]["patchline"] or "not installed"
    return [*lines, ("measured", f"{limits}; patchline {version}")]


def _clock(document: Mapping[str, Any], key: str) -> str:
    before, after = (
        max((clock["hz"] for clock in document["state"][when][key]), default=0) / 1e6
        for when in ("before", "after")
    )
    governors = dict.fromkeys(str(clock["governor"]) for clock in document["state"]["before"][key])
    return f"{before:,.0f} MHz before, {after:,.0f} after ({', '.join(governors)})"


def _latency_table(latency: Mapping[str, Any]) -> Table:
    found = {"end to end": latency["end_to_end"]}
    found |= {_PHASES[name]: each for name, each in latency["phases"].items() if each}
    return _statistics_table(f"Latency in ms, batch {latency['batch']}", found)


def _compared_table(document: Mapping[str, Any]) -> Table:
    found = {name.upper(): document[name]["end_to_end"] for name in ("a", "b")}
    return _statistics_table(f"Latency end to end in ms, batch {document['batch']}", found)


def _statistics_table(title: str, found: Mapping[str, Mapping[str, float]]) -> Table:
    table = _table(title, "", *found)
    for name in _STATISTICS:
        table.add_row(name, *(f"{summary[f'{name}_ms']:.3f}" for summary in found.values()))
    table.add_row("variation", *(f"{summary['cv_percent']:.1f} %" for summary in found.values()))
    table.add_row("calls", *(f"{summary['runs']:,}" for summary in found.values()))
    return table


def _throughput_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("Throughput", "batch", "in flight", "median ms", "p99 ms", "frames/s")
    for run in runs:
        call = run["call"]
        times = (f"{call['median_ms']:.3f}", f"{call['p99_ms']:.3f}")
        table.add_row(
            str(run["batch"]), str(run["in_flight"]), *times, f"{run['frames_per_s']:,.1f}"
        )
    return table


def _pairs_table(document: Mapping[str, Any]) -> Table:
    table = _table("Pair by pair, medians of blocks", "round", "A ms", "B ms", "B / A")
    rows = zip(
        document["a"]["medians_ms"],
        document["b"]["medians_ms"],
        document["ratio_b_over_a"]["pairs"],
        strict=True,
    )
    for number, (first, second, ratio) in enumerate(rows, 1):
        table.add_row(str(number), f"{first:.3f}", f"{second:.3f}", f"{ratio:.3f}")
    return table


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    return table


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, emoji=False)


def _print_lines(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    for name, text in lines:
        console.print(f"{name:<10} {text}", markup=False, soft_wrap=True)
