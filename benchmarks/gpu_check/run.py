"""``run``: all parts of the check, one after the other, with the result written after each."""

from __future__ import annotations

import contextlib
import datetime
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from patchline.benchmarks.gpu_check.bench import Bench, Part, PlanEngine, Results, Sizes
from patchline.benchmarks.gpu_check.carried import Carried, Case, in_folder, load_carried
from patchline.benchmarks.gpu_check.lasting import banks, endurance
from patchline.benchmarks.gpu_check.plans import build, compare
from patchline.benchmarks.gpu_check.speed import latencies, throughput
from patchline.benchmarks.report import describe_machine
from patchline.runtime.engine import open_engine
from patchline.runtime.engine.options import TensorRTOptions
from patchline.runtime.errors import PatchlineError
from patchline.runtime.files import write_atomically

PARTS: dict[str, Part] = {
    "build": build,
    "compare": compare,
    "endurance": endurance,
    "latency": latencies,
    "throughput": throughput,
    "banks": banks,
}
"""The most important first."""


def check_gpu(
    folder: Path,
    out: Path,
    *,
    device: int,
    flavour: str | None,
    sizes: Sizes,
    say: Callable[[str], object],
) -> list[str]:
    """Run every part on a GPU and write one JSON.

    Args:
        folder: what ``pack`` has written; nothing is written there.
        out: the JSON, written anew after each part, so that an end by force loses only the rest.
        device: index of the GPU.
        flavour: of TensorRT; ``None`` for the one that is installed.
        sizes: how long the parts last.
        say: told of each part.

    Returns:
        A sentence for everything that is wrong; empty where all is well.

    Raises:
        DataError: the folder is not complete.
        EngineError: there is no GPU, driver, pycuda or TensorRT.
        WriteError: the JSON cannot be written.
    """
    from patchline.runtime.engine.compat import load_flavour
    from patchline.runtime.engine.cuda.gpu import open_gpu

    carried = load_carried(folder)
    version = str(load_flavour(flavour))
    options = TensorRTOptions(device=device, flavour=flavour)
    with contextlib.closing(open_gpu(device)) as gpu, _copied(carried) as copied:
        bench = Bench(copied, gpu, opener(options), sizes)
        about = {
            "machine": describe_machine() | {"gpu": gpu.device.model_dump(), "tensorrt": version},
            "gpu_memory_bytes": gpu.total_bytes,
            "carried": carried.record,
        }
        return run_parts(bench, PARTS, about, out, say)


def opener(
    options: TensorRTOptions,
) -> Callable[[Case, bool], contextlib.AbstractContextManager[PlanEngine]]:
    """A function that opens a case's plan, beside its model, and builds it on first use."""

    @contextlib.contextmanager
    def opened(case: Case, cuda_graph: bool) -> Iterator[PlanEngine]:
        chosen = TensorRTOptions(
            device=options.device, flavour=options.flavour, cuda_graph=cuda_graph
        )
        plan = case.model.with_suffix(".trt")
        with open_engine(plan, bank=case.bank, tensorrt=chosen) as engine:
            yield engine  # type: ignore[misc]  # a plan's engine has slots

    return opened


def run_parts(
    bench: Bench,
    parts: dict[str, Part],
    about: Results,
    out: Path,
    say: Callable[[str], object],
) -> list[str]:
    """Run parts in turn; one that fails is recorded and the next goes on.

    Returns:
        What is wrong, as sentences that begin with the part's name.
    """
    document: Results = {
        "suite": "gpu-check",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **about,
        "parts": {},
        "failures": [],
        "not_run": list(parts),
    }
    _write(out, document)
    for name, part in parts.items():
        started = time.perf_counter()
        figures, failures = _attempt(part, bench)
        seconds = round(time.perf_counter() - started, 1)
        document["parts"][name] = {"seconds": seconds, **figures}
        document["failures"] += [f"{name}: {failure}" for failure in failures]
        document["not_run"].remove(name)
        _write(out, document)
        say(f"{name}: {seconds} s, {len(failures) or 'no'} failures")
    return list(document["failures"])


def _attempt(part: Part, bench: Bench) -> tuple[Results, list[str]]:
    try:
        found = part(bench)
    except PatchlineError as error:
        return {"error": str(error)}, [str(error)]
    except Exception as error:  # what a part does not foresee must not cost the other parts
        return {"error": traceback.format_exc()}, [f"{type(error).__name__}: {error}"]
    return found.figures, found.failures


def _write(out: Path, document: Results) -> None:
    write_atomically(out, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def _copied(carried: Carried) -> Iterator[Carried]:
    """The same with its models in a folder where plans may lie."""
    with tempfile.TemporaryDirectory() as folder:
        yield in_folder(carried, Path(folder))
