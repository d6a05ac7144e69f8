"""What waits for an output: in order, bounded, frames given up before notices; and its counts."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from patchline.runtime.decisions.event import Notice
from patchline.runtime.errors import ConfigurationError
from patchline.runtime.verdict import JudgedFrame


@dataclass(eq=False)
class Item:
    """A frame or a notice.

    Attributes:
        content: what the output is given.
        tries: how often it was given in vain.
    """

    content: JudgedFrame | Notice
    tries: int = 0

    @property
    def is_frame(self) -> bool:
        """Whether it is a frame."""
        return isinstance(self.content, JudgedFrame)


class WaitingLine:
    """At most ``size`` items, first in first out. The caller holds a lock.

    Attributes:
        written: items that the output took.
        dropped_frames: frames that it did not.
        dropped_notices: notices that it did not.

    Raises:
        ConfigurationError: no room for a single item.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ConfigurationError(f"the queue of an output has size {size}, expected at least 1")
        self.written = self.dropped_frames = self.dropped_notices = 0
        self._items: deque[Item] = deque()
        self._size = size

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """Whether something must go before something comes."""
        return len(self._items) >= self._size

    @property
    def dropped(self) -> int:
        """Frames and notices."""
        return self.dropped_frames + self.dropped_notices

    def put(self, item: Item) -> None:
        """Append an item; a full line gives up its oldest frame, then the item if it is a frame.

        Only a line that is full of notices gives up its oldest notice for a new one.
        """
        if self.is_full and not self._drop_oldest_frame():
            if item.is_frame:
                self.refuse(item)
                return
            self.refuse(self._items.popleft())
        self._items.append(item)

    def put_back(self, item: Item) -> None:
        """Give the item in hand its place at the head again."""
        if self.is_full and not self._drop_oldest_frame():
            self.refuse(item)
            return
        self._items.appendleft(item)

    def take(self) -> Item:
        """The next one."""
        return self._items.popleft()

    def refuse(self, item: Item) -> None:
        """Count an item that the output will not have."""
        if item.is_frame:
            self.dropped_frames += 1
        else:
            self.dropped_notices += 1

    def drop_frames(self) -> None:
        """Give up every frame."""
        while self._drop_oldest_frame():
            pass

    def drop_all(self) -> None:
        """Give up everything."""
        while self._items:
            self.refuse(self._items.popleft())

    def _drop_oldest_frame(self) -> bool:
        for position, item in enumerate(self._items):
            if item.is_frame:
                del self._items[position]
                self.refuse(item)
                return True
        return False
