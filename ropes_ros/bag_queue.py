"""Writing a bag beside what receives its messages: a queue that is bounded in bytes, and a thread that empties it.

Who receives never waits for the disk. What finds no room in the queue is dropped and counted.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ropes_ros.bag_format import Losses, OfferedQos
from ropes_ros.bag_writer import BagWriter, message_definition
from ropes_ros.errors import BagError

QUEUE_BYTES = 256 << 20
SMALL_BYTES = 1 << 16
"""Messages below this size (commands, regimes) are dropped last: the queue's reserve is theirs alone."""
RESERVE_BYTES = 16 << 20


class _Topic(NamedTuple):
    name: str
    type_name: str
    qos: OfferedQos | None


class _Message(NamedTuple):
    topic: str
    data: bytes
    log_time_ns: int


class QueuedWriter:
    """Hands what it is given to a `BagWriter`, in a thread of its own. Its methods return at once, `wait` excepted.

    Args:
        writer: An open bag, which belongs to this object from now on.
        limit_bytes: Bytes of messages that may wait; the reserve for small ones comes on top.
    """

    def __init__(self, writer: BagWriter, limit_bytes: int = QUEUE_BYTES) -> None:
        self._writer = writer
        self._limit = limit_bytes
        self._items: deque[_Topic | _Message] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._ended = False
        self.losses: Mapping[str, Losses] = {}
        """What `end` was told."""
        self.dropped: Counter[str] = Counter()
        """Topic to the number of its messages that found no room."""
        self.accepted: Counter[str] = Counter()
        """Topic to the number of its messages that are written, or wait to be."""
        self.error: Exception | None = None
        """Why writing ended before it was to: a BagError, or what should not happen."""
        self._thread = threading.Thread(target=self._run, name=f"writer of {writer.path.name}", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """The bag."""
        return self._writer.path

    @property
    def bytes_written(self) -> int:
        """Size of the storage file so far."""
        return self._writer.bytes_written

    @property
    def waiting_bytes(self) -> int:
        """Bytes of messages that are not written yet."""
        return self._waiting

    def add_topic(self, name: str, type_name: str, qos: OfferedQos | None = None) -> None:
        """Announce a topic, as `BagWriter.add_topic`.

        Raises:
            BagError: The type is unknown.
        """
        message_definition(type_name)
        self._append(_Topic(name, type_name, qos))

    def put(self, topic: str, data: bytes, log_time_ns: int) -> bool:
        """Append one message; False, and counted, where it finds no room."""
        size = len(data)
        room = self._limit + (RESERVE_BYTES if size < SMALL_BYTES else 0)
        if self._waiting and self._waiting + size > room:
            self.dropped[topic] += 1
            return False
        self.accepted[topic] += 1
        self._append(_Message(topic, data, log_time_ns))
        return True

    def _append(self, item: _Topic | _Message) -> None:
        with self._changed:
            self._items.append(item)
            if isinstance(item, _Message):
                self._waiting += len(item.data)
            self._changed.notify()

    def end(self, losses: Mapping[str, Losses], reason: str = "") -> None:
        """Write what waits, then close the bag.

        Args:
            losses: Topic to what is missing of it, for the bag.
            reason: Why the recording ends, where nobody asked for it.
        """
        with self._changed:
            if reason:
                self._writer.note_end(reason)
            self.losses = losses
            self._ended = True
            self._changed.notify()

    @property
    def done(self) -> bool:
        """Whether the bag is closed, or has failed."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the bag is closed, after `end`.

        Raises:
            BagError: It could not be written or closed.
        """
        self._thread.join()
        self.check()

    def check(self) -> None:
        """Nothing while all is well.

        Raises:
            BagError: Writing has failed.
        """
        if isinstance(self.error, BagError):
            raise self.error
        if self.error is not None:
            raise BagError(f"{self.path} cannot be written ({self.error!r}): run `ropes recover {self.path}`")

    def _run(self) -> None:
        try:
            while not self._take():
                pass
            self._writer.close()
        except Exception as error:  # told by whoever looks at `error`; an error here must not go unheard
            self.error = error
            self._writer.abort()
            with self._changed:
                self._items.clear()
                self._waiting = 0

    def _take(self) -> bool:
        """Write what waits, or flush when it is time to; whether that was all, up to the end."""
        with self._changed:
            if not self._items and not self._ended:
                self._changed.wait(self._writer.flush_due_in())
            items, self._items = self._items, deque()
            ended = self._ended
        for item in items:
            if isinstance(item, _Topic):
                self._writer.add_topic(*item)
                continue
            self._writer.write(*item)
            with self._changed:
                self._waiting -= len(item.data)
        if ended and not items:
            for topic, lost in self.losses.items():
                self._writer.note_losses(topic, lost)
            return True
        if self._writer.flush_due_in() <= 0:
            self._writer.flush()
        return False
