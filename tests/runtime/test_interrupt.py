"""An interrupt that a library drops is raised again at the next step of the job."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from patchline.runtime.interrupt import raise_if_interrupted, remembered_interrupts
from patchline.runtime.progress import ConsoleSteps


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) == before
    signal.signal(signal.SIGINT, signal.default_int_handler)


def drop_an_interrupt() -> None:
    with contextlib.suppress(KeyboardInterrupt):  # as a bare `except:` in a library does
        signal.raise_signal(signal.SIGINT)


class Finalised:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def silent_steps() -> ConsoleSteps:
    return ConsoleSteps(Console(file=io.StringIO()))


def test_it_is_raised_as_always() -> None:
    with pytest.raises(KeyboardInterrupt), remembered_interrupts():
        signal.raise_signal(signal.SIGINT)


def test_a_job_that_is_not_interrupted_goes_on() -> None:
    with remembered_interrupts(), silent_steps().step("Fitting", 2) as advance:
        raise_if_interrupted()
        advance(1)


def test_a_dropped_one_ends_the_job_at_its_next_look() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), remembered_interrupts():
        with silent_steps().step("Fitting", 3) as advance:
            advance(1)
            drop_an_interrupt()
            done.append("the library's call")
            advance(2)
        done.append("the rest")
    assert done == ["the library's call"]


def test_a_dropped_one_ends_the_job_at_the_end_of_the_step_or_before_the_next() -> None:
    for look in (True, False):
        done = []
        with pytest.raises(KeyboardInterrupt), remembered_interrupts():
            if look:
                with silent_steps().step("Fitting", 1):
                    drop_an_interrupt()
                done.append("past the step")
            else:
                drop_an_interrupt()
                with silent_steps().step("Fitting", 1):
                    done.append("in the step")
        assert done == []


def test_one_in_a_finaliser_is_remembered_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    with pytest.raises(KeyboardInterrupt), remembered_interrupts():
        Finalised()
        assert not reported
        raise_if_interrupted()
    assert sys.unraisablehook == reported.append


def test_another_error_in_a_finaliser_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    with remembered_interrupts():
        Broken()
    assert len(reported) == 1


def test_the_next_command_of_the_process_starts_afresh() -> None:
    with remembered_interrupts():
        drop_an_interrupt()
    raise_if_interrupted()
    with remembered_interrupts():
        raise_if_interrupted()


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with remembered_interrupts():
            signal.raise_signal(signal.SIGINT)
            raise_if_interrupted()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_thread_may_run_a_command() -> None:
    failures = []

    def run() -> None:
        try:
            with remembered_interrupts():
                raise_if_interrupted()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failures == []
