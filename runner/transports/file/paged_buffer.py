"""Engine: the messages of one queue and one priority in the file, of which only the first ones are in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from runner.transports.file.store import LINE_BITS, FileStore
from runner.transports.memory.queue_buffer import FifoBuffer, QueuedMessage

WINDOW, WINDOW_BYTES = 1024, 4 * 1024 * 1024
"""How many messages and bytes of a line are in memory at most, beside those that were given back to it."""

PAGE, PAGE_BYTES = 128, 512 * 1024
"""How many are read at a time, while the event loop waits."""


class PagedBuffer:
    """First in, first out. What does not fit into the window is in the file alone, and is read when its turn comes.

    `line` is its number in the file, None as long as it has none; `new_line` makes one. `length` is how many messages
    it has there. `on_written` is called when messages that may not be delivered before they are in the file are there.
    """

    def __init__(
        self,
        store: FileStore,
        line: int | None,
        length: int,
        new_line: Callable[[], int],
        on_written: Callable[[], None],
    ) -> None:
        self._store = store
        self._new_line = new_line
        self._on_written = on_written
        self._head = FifoBuffer()
        self._head_bytes = 0
        self._ahead = length
        self._unwritten: deque[tuple[int, QueuedMessage]] = deque()
        self._base = self._last = 0
        if line is not None:
            self._base = self._last = line << LINE_BITS

    def append(self, message: QueuedMessage, /) -> None:
        """Append a message that has arrived, and write it to the file."""
        if not self._base:
            self._base = self._last = self._new_line() << LINE_BITS
        message.position |= self._base
        group = self._store.insert(message, self)
        is_full = len(self._head) >= WINDOW or self._head_bytes >= WINDOW_BYTES
        if self._ahead or is_full or self._store.is_careful:
            self._ahead += 1
            self._unwritten.append((group, message))
        else:
            self._push(message)

    def popleft(self) -> QueuedMessage:
        """Remove the head and return it. Raises IndexError when the buffer is empty."""
        self._load_head()
        message = self._head.popleft()
        self._head_bytes -= len(message.envelope.body)
        return message

    def restore(self, message: QueuedMessage) -> None:
        """Put a message back where it stood: all that are not in memory stand behind it."""
        self._head.restore(message)
        self._head_bytes += len(message.envelope.body)

    def note_written(self, number: int) -> None:
        """Forget the messages that are in the file now, and can be read there."""
        unwritten, before = self._unwritten, len(self._unwritten)
        while unwritten and unwritten[0][0] <= number:
            unwritten.popleft()
        if len(unwritten) != before:
            self._on_written()

    def discard(self, number: int) -> bool:
        """Remove a message that another process has removed from the file. False where it is delivered already."""
        for index, message in enumerate(self._head):
            if message.position == number:
                del self._head[index]
                self._head_bytes -= len(message.envelope.body)
                return True
        is_ahead = number > self._last and self._ahead > 0
        self._ahead -= is_ahead
        return is_ahead

    def __getitem__(self, index: int, /) -> QueuedMessage:
        self._load_head()
        return self._head[index]

    def __len__(self) -> int:
        return len(self._head) + self._ahead

    def __bool__(self) -> bool:
        """Whether there is a head. Where care is needed, a message has to be in the file first."""
        self._load_head()
        return bool(self._head)

    def __iter__(self) -> Iterator[QueuedMessage]:
        yield from [*self._head]
        last = self._last
        for message in self._store.stream(last + 1, self._end):
            last = message.position
            yield message
        yield from [message for _, message in self._unwritten if message.position > last]

    @property
    def _end(self) -> int:
        return self._base | (1 << LINE_BITS) - 1

    def _push(self, message: QueuedMessage) -> None:
        self._head.append(message)
        self._head_bytes += len(message.envelope.body)
        self._last = message.position

    def _load_head(self) -> None:
        """Read the next messages where none is in memory; those that are not in the file yet are in memory."""
        if self._head or self._ahead <= (len(self._unwritten) if self._store.is_careful else 0):
            return
        found, last = self._store.read(self._last + 1, self._end, PAGE, PAGE_BYTES), self._last
        if not found and not self._store.is_careful:
            found = [message for _, message in self._unwritten if message.position > last][:PAGE]
        for message in found:
            self._push(message)
        behind = sum(message.position > last for _, message in self._unwritten)
        self._ahead = self._ahead - len(found) if found else behind
