"""The outbox: what it keeps, what it gives up, what a crash and a second process do to it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.outputs.outbox import Message, Outbox


def held(outbox: Outbox) -> list[Message]:
    messages: list[Message] = []
    while (message := outbox.next(messages[-1].number if messages else 0)) is not None:
        messages.append(message)
    return messages


def test_messages_are_kept_in_order_over_a_restart_until_they_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/outbox.db"
    with closing(Outbox(path)) as outbox:
        for name in "abc":
            assert outbox.put(name, f"topic/{name}", name.encode()) == 0
        first = outbox.next()
        assert first is not None
        outbox.remove(first.number)
        outbox.remove(first.number)
    with closing(Outbox(path)) as outbox:
        assert [(m.message_id, m.topic, m.payload) for m in held(outbox)] == [
            ("b", "topic/b", b"b"),
            ("c", "topic/c", b"c"),
        ]
        assert len(outbox) == 2
        outbox.put("d", "t", b"")
        assert held(outbox)[-1].number > first.number + 2  # numbers are never used again
    outbox.close()


def test_a_message_is_kept_once(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "a.db")) as outbox:
        outbox.put("a", "t", b"1")
        outbox.put("a", "t", b"2")
        assert [message.payload for message in held(outbox)] == [b"1"]
        assert len(outbox) == 1


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), max_size=25),
    most_messages=st.integers(1, 8),
    most_bytes=st.integers(1, 80),
)
def test_the_oldest_go_first_and_are_counted(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    most_messages: int,
    most_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("outbox") / "a.db"
    reference: list[tuple[str, int]] = []
    dropped = 0
    with closing(Outbox(path, most_messages=most_messages, most_bytes=most_bytes)) as outbox:
        for number, size in enumerate(sizes):
            outbox.put(str(number), "t", b"x" * size)
            reference.append((str(number), size))
            while len(reference) > 1 and (
                len(reference) > most_messages or sum(s for _, s in reference) > most_bytes
            ):
                reference.pop(0)
                dropped += 1
            if number % 5 == 4:
                outbox.remove(held(outbox)[0].number)
                reference.pop(0)
            assert [message.message_id for message in held(outbox)] == [n for n, _ in reference]
            assert (len(outbox), outbox.dropped) == (len(reference), dropped)
    with closing(Outbox(path)) as outbox:
        assert (len(outbox), outbox._bytes) == (len(reference), sum(s for _, s in reference))


def test_what_was_sent_is_given_back_to_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(Outbox(path)) as outbox:
        for number in range(20):
            outbox.put(str(number), "t", b"x" * 100_000)
        for message in held(outbox):
            outbox.remove(message.number)
    assert path.stat().st_size < 100_000


def test_several_threads_share_it(tmp_path: Path) -> None:
    with closing(Outbox(tmp_path / "a.db")) as outbox:

        def put(worker: int) -> None:
            for number in range(20):
                outbox.put(f"{worker}-{number}", "t", b"x")

        threads = [threading.Thread(target=put, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(outbox) == len(held(outbox)) == 80


CHILD = """
import sys
from pathlib import Path
from patchline.runtime.outputs.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
outbox.put("a", "t", b"x")
print("kept", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_killed_one_leaves_all(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(Outbox(path)):
        pass
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"kept\n"
        with pytest.raises(ConfigurationError, match="in use by another process"):
            Outbox(path)
        os.kill(child.pid, signal.SIGKILL)
    with closing(Outbox(path)) as outbox:
        assert [message.message_id for message in held(outbox)] == ["a"]


@pytest.mark.parametrize(
    "content", [b"no database, but long enough " * 40, b"SQLite format 3\0" * 9]
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    with closing(Outbox(path)) as outbox:
        outbox.put("a", "t", b"x")
        assert outbox.set_aside == tmp_path / "a.db.damaged"
    assert (tmp_path / "a.db.damaged").read_bytes() == content


def test_a_file_of_other_tables_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE messages (x)")
        other.commit()
    with pytest.raises(WriteError, match="cannot write to the outbox"), closing(Outbox(path)):
        pass


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"a part of that path is a file|is in the way"):
        Outbox(tmp_path / "file" / "a.db")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="unable to open"):
        Outbox(tmp_path / "folder")
    outbox = Outbox(tmp_path / "a.db")
    outbox.close()
    with pytest.raises(WriteError, match="closed"):
        outbox.put("a", "t", b"")


@pytest.mark.parametrize("limits", [{"most_messages": 0}, {"most_bytes": 0}])
def test_limits_that_cannot_be(tmp_path: Path, limits: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="expected at least 1"):
        Outbox(tmp_path / "a.db", **limits)
