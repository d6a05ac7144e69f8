"""The thread of a queued output: it hands over what waits, and lives through every failure."""

from __future__ import annotations

import threading

from patchline.runtime.outputs.base import (
    Output,
    OutputClosedError,
    OutputEndedError,
    sentence_of,
)
from patchline.runtime.outputs.queue_state import QueueState, Worker
from patchline.runtime.outputs.waiting import Item
from patchline.runtime.verdict import JudgedFrame


def start_worker(state: QueueState, output: Output) -> Worker:
    """Serve an output in a new thread, which closes it in the end."""
    worker = Worker(output)
    worker.thread = threading.Thread(
        target=_serve, args=(state, worker), name=f"output {state.name}", daemon=True
    )
    worker.thread.start()
    return worker


def _serve(state: QueueState, worker: Worker) -> None:
    while (item := _take(state, worker)) is not None:
        _attempt(state, worker, item)
    _finish(state, worker)


def _take(state: QueueState, worker: Worker) -> Item | None:
    with state.changed:
        return state.take(worker)


def _attempt(state: QueueState, worker: Worker, item: Item) -> None:
    try:
        _hand_over(worker.output, item)
    except OutputClosedError:
        _end(state, worker, None)
    except OutputEndedError as error:
        _end(state, worker, error)
    except (Exception, SystemExit) as error:  # of a user's output, too: it must not end the line
        _fail(state, worker, item, error)
    else:
        _succeed(state, worker, item)


def _hand_over(output: Output, item: Item) -> None:
    if isinstance(item.content, JudgedFrame):
        output.write(item.content)
    else:
        output.notify(item.content)


def _succeed(state: QueueState, worker: Worker, item: Item) -> None:
    with state.changed:
        if worker.is_abandoned:
            return
        lost = state.line.dropped - state.health.dropped_before
        has_recovered = state.succeed(worker, item)
    if has_recovered:
        state.tell(state.name, f"works again; {lost} records were dropped meanwhile")


def _fail(state: QueueState, worker: Worker, item: Item, error: BaseException) -> None:
    with state.changed:
        if worker.is_abandoned:
            return
        is_new = not state.health.is_failing
        pause_s = state.fail(worker, item, error)
    if is_new:
        sentence = f"{sentence_of(error)}. Frames are dropped, and it is tried again"
        state.tell(state.name, sentence)
    state.clock.wait(state.closing, pause_s)
    with state.changed:
        state.health.is_pausing = False


def _end(state: QueueState, worker: Worker, error: OutputEndedError | None) -> None:
    with state.changed:
        if worker.is_abandoned:
            return
        if error is not None:
            state.count_failure()
        state.end(worker)
    if error is not None:
        state.tell(state.name, f"{error}. It is not tried again")


def _finish(state: QueueState, worker: Worker) -> None:
    in_charge = state.worker
    if in_charge is not worker and in_charge.output is worker.output:
        return  # the one that took its place closes it
    try:
        worker.output.close()
    except (Exception, SystemExit) as error:
        if not worker.is_abandoned:
            with state.changed:
                state.count_failure()
            state.tell(state.name, sentence_of(error))
