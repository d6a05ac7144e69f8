"""A round whose engines have no node any more is ended; one that only takes long is not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from patchline.runtime.archive.room_watch import while_there_is_room
from patchline.runtime.errors import ClusterError

LOOK_S = 0.01


class Room:
    """Raises where there is none; ``looks`` are the answers, the last one for good."""

    def __init__(self, *looks: bool) -> None:
        self._looks, self.seen, self.enough = list(looks), 0, threading.Event()

    def __call__(self) -> int:
        self.seen += 1
        if self.seen >= 12:
            self.enough.set()
        if not (self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]):
            raise ClusterError("no node of the cluster has room")
        return 1


def rows(wait: threading.Event, count: int = 2) -> Iterator[int]:
    """The first at once, the others when the event is set; closed as Ray's is."""
    for number in range(count):
        if number:
            wait.wait(60)
        yield number


def test_the_wait_for_a_node_ends_with_what_is_missing() -> None:
    before, found = signal.getsignal(signal.SIGINT), list[int]()
    with pytest.raises(
        ClusterError, match=r"^for 0 minutes no node .* has room\. The same call goes"
    ):
        for row in while_there_is_room(
            rows(threading.Event()), Room(False), look_s=LOOK_S, patience_s=3 * LOOK_S
        ):
            found.append(row)
    assert found == [0]
    assert signal.getsignal(signal.SIGINT) == before


def test_a_node_that_comes_back_and_a_long_part_are_waited_for() -> None:
    room = Room(True, False, False, True)
    given = while_there_is_room(rows(room.enough), room, look_s=LOOK_S, patience_s=3 * LOOK_S)
    assert list(given) == [0, 1]
    assert room.seen >= 12


def test_a_look_that_fails_now_and_then_ends_nothing() -> None:
    enough, asked = threading.Event(), list[int]()

    def room() -> None:
        asked.append(1)
        if len(asked) > 12:
            enough.set()
        if len(asked) % 2:
            raise ConnectionError

    given = while_there_is_room(rows(enough), room, look_s=LOOK_S, patience_s=2 * LOOK_S)
    assert list(given) == [0, 1]


def test_looks_that_fail_for_good_end_the_wait_with_the_reason() -> None:
    def room() -> None:
        raise ConnectionError("refused")

    reason = r"^for 0 minutes the cluster could not be looked at \(ConnectionError: refused\)\. The"
    with pytest.raises(ClusterError, match=reason):
        list(while_there_is_room(rows(threading.Event()), room, look_s=LOOK_S, patience_s=LOOK_S))


def test_ctrl_c_is_what_it_was() -> None:
    def interrupted() -> Iterator[int]:
        yield 0
        signal.raise_signal(signal.SIGINT)
        yield 1

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        list(while_there_is_room(interrupted(), Room(True)))
    assert signal.getsignal(signal.SIGINT) == before


def test_no_signal_reaches_another_thread() -> None:
    problems: list[str] = []

    def elsewhere() -> None:
        try:
            list(while_there_is_room([1], Room(True)))
        except RuntimeError as error:
            problems.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert problems == ["an archive is scored on a cluster in the main thread"]
