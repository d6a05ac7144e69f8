"""What was set by hand survives a restart, and only as long as it means the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from patchline.runtime.decisions.trigger import Trigger
from patchline.runtime.errors import ConfigurationError, WriteError
from patchline.runtime.line.overrides import Overrides

ONE, THREE_OF_FIVE = Trigger(1, 1), Trigger(3, 5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "overrides.json"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def opened(path: Path, said: list[str]) -> Callable[[], Overrides]:
    """The line starts."""
    return lambda: Overrides(path, said.append)


def test_what_was_set_is_there_after_a_restart(
    opened: Callable[[], Overrides], path: Path, said: list[str]
) -> None:
    first = opened()
    first.set_threshold("left", 1.3, instead_of=1.2)
    first.set_trigger("left", THREE_OF_FIVE, instead_of=ONE)
    first.set_threshold("right", 0.1 + 0.2, instead_of=1e-300)
    assert json.loads(path.read_text()) == {
        "left": {
            "threshold": {"value": 1.3, "instead_of": 1.2},
            "trigger": {"value": "3/5", "instead_of": "1/1"},
        },
        "right": {"threshold": {"value": 0.1 + 0.2, "instead_of": 1e-300}},
    }
    for overrides in (first, opened()):
        assert overrides.threshold("left", 1.2) == 1.3
        assert overrides.trigger("left", ONE) == THREE_OF_FIVE
        assert overrides.threshold("right", 1e-300) == 0.1 + 0.2
        assert overrides.trigger("right", ONE) is None
        assert overrides.threshold("another", 1.0) is None
    assert said == []


def test_without_a_file_nothing_is_set_and_none_is_made(
    opened: Callable[[], Overrides], path: Path, said: list[str]
) -> None:
    assert opened().threshold("left", 1.0) is None
    assert opened().trigger("left", ONE) is None
    assert not path.exists()
    assert said == []


def test_none_takes_it_back(opened: Callable[[], Overrides], path: Path) -> None:
    overrides = opened()
    overrides.set_threshold("left", 1.3, instead_of=1.2)
    overrides.set_trigger("left", THREE_OF_FIVE, instead_of=ONE)
    overrides.set_threshold("left", None, instead_of=1.2)
    assert overrides.threshold("left", 1.2) is None
    assert opened().trigger("left", ONE) == THREE_OF_FIVE
    overrides.set_trigger("left", None, instead_of=ONE)
    overrides.set_trigger("right", None, instead_of=ONE)  # was never set
    assert json.loads(path.read_text()) == {}


def test_who_configures_anew_means_what_is_configured(
    opened: Callable[[], Overrides], path: Path, said: list[str]
) -> None:
    first = opened()
    first.set_threshold("left", 1.3, instead_of=1.2)
    first.set_trigger("left", THREE_OF_FIVE, instead_of=ONE)
    again = opened()
    assert again.threshold("left", 1.25) is None
    assert len(said) == 1
    assert "camera left: the threshold 1.3 that was set by hand is dropped" in said[0]
    assert "was 1.2 then and is 1.25 now" in said[0]
    assert again.trigger("left", Trigger(2, 2)) is None
    assert "the trigger 3/5 that was set by hand" in said[1]
    # For good: not even the value that it replaced brings it back, and it is said once.
    assert again.threshold("left", 1.2) is None
    assert opened().threshold("left", 1.2) is None
    assert len(said) == 2
    assert json.loads(path.read_text()) == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_threshold_is_finite(opened: Callable[[], Overrides], path: Path, value: float) -> None:
    with pytest.raises(ConfigurationError, match="expected a finite number"):
        opened().set_threshold("left", value, instead_of=1.0)
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\x00",
        b'{"left": 3}',
        b'{"left": {"threshold": 1.0}}',
        b'{"left": {"threshold": {"value": "1", "instead_of": 1.0}}}',
        b'{"left": {"threshold": {"value": 1.0}}}',
        b'{"left": {"threshold": {"value": NaN, "instead_of": 1.0}}}',
        b'{"left": {"trigger": {"value": "9/5", "instead_of": "1/1"}}}',
        b'{"left": {"other": {"value": 1.0, "instead_of": 1.0}}}',
    ],
)
def test_a_damaged_file_is_set_aside_and_the_line_starts(
    opened: Callable[[], Overrides], path: Path, said: list[str], content: bytes
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    overrides = opened()
    assert overrides.threshold("left", 1.0) is None
    assert len(said) == 1
    assert f"{path} is damaged" in said[0]
    assert path.with_name("overrides.json.damaged").read_bytes() == content
    assert not path.exists()
    overrides.set_threshold("left", 2.0, instead_of=1.0)
    assert opened().threshold("left", 1.0) == 2.0
    assert len(said) == 1


def test_a_file_that_cannot_be_read_is_a_warning(
    opened: Callable[[], Overrides], path: Path, said: list[str]
) -> None:
    path.mkdir(parents=True)
    assert opened().threshold("left", 1.0) is None
    assert "cannot be read" in said[0]


def test_what_cannot_be_saved_holds_until_the_end(
    opened: Callable[[], Overrides], path: Path, said: list[str]
) -> None:
    overrides = opened()
    overrides.set_threshold("left", 2.0, instead_of=1.0)
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("a file is in the way")
    with pytest.raises(WriteError, match="cannot write to"):
        overrides.set_threshold("left", 3.0, instead_of=1.0)
    assert overrides.threshold("left", 1.0) == 3.0
    assert overrides.threshold("left", 1.5) is None  # dropped, and that is not saved either
    assert "is dropped" in said[0]
    assert "cannot write to" in said[1]


def test_many_threads_may_set(opened: Callable[[], Overrides]) -> None:
    overrides = opened()

    def work(number: int) -> None:
        for step in range(5):
            overrides.set_threshold(f"camera{number}", float(step), instead_of=1.0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = opened()
    assert [again.threshold(f"camera{number}", 1.0) for number in range(6)] == [4.0] * 6
