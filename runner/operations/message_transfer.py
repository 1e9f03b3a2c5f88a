"""Moves what waits from one broker to another, by a file with a line of JSON for each message.

A message leaves the old broker when its line is on the disk, and the import notes how far the new broker has confirmed
the lines. Whatever happens, none is lost; those of the last groups may be doubled, with the same ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import math
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, NamedTuple

from runner.clock import utc_now
from runner.envelope_json import read_properties, write_properties
from runner.errors import PublishFailed, PublishUnknown, RunnerError
from runner.message import DELAY_TO, UNREADABLE, Address, Envelope, Timestamp
from runner.operations.dead_letters import DeadLetterQueue, dead_letter_queues, parse_dead_letter, preserved_copy
from runner.operations.queue_access import Browsed, Browser, QueueAccess
from runner.operations.targets import unknown_target
from runner.pipeline.delays import delay_headers, delay_in, delay_steps, delay_topology, step_name, without_delay
from runner.pipeline.model import Pipeline
from runner.pipeline.topology import Topology, merge_topologies
from runner.transports.amqp_limits import check_routing_key, normalize_envelope
from runner.transports.base import Transport
from runner.transports.failure_copies import is_broker_header

GROUP, GROUP_BYTES = 50, 8 * 1024 * 1024
"""How much is written and then removed together, or published together, at most."""

STALLED_S = 1.0
"""Time without a message after which a queue counts as read, although it had more."""

MAX_LINE_BYTES = 128 * 1024 * 1024
"""More than the largest message takes, also if each of its bytes has to be escaped."""

HEADER = b'{"runner": "messages", "version": 1}\n'
_PROPERTIES = Envelope._fields[1:]


class TransferFailed(RunnerError):
    """A queue is in use, the file or a line of it cannot be used, or a message was not confirmed."""


# The file


class WaitingMessage(NamedTuple):
    """A message, and the address that it came by. It waits in `queue`, or until it goes to the destination `to`."""

    envelope: Envelope
    address: Address
    queue: str | None = None
    to: str | None = None
    due: datetime | None = None

    def as_line(self) -> bytes:
        """Return its line in the file."""
        body, place = self.envelope.body, {"queue": self.queue, "to": self.to, "due": self.due and self.due.isoformat()}
        try:
            content = {"body": body.decode()}
        except UnicodeDecodeError:
            content = {"body_hex": body.hex()}
        properties = zip(_PROPERTIES, json.loads(write_properties(self.envelope)), strict=True)
        items = {**place, **self.address._asdict(), **content, **dict(properties)}
        return json.dumps({name: value for name, value in items.items() if value is not None}).encode() + b"\n"


def read_line(line: bytes) -> WaitingMessage:
    """Return the message of a line, whatever the line is. Raises ValueError with what is wrong."""
    try:
        items = json.loads(line)
        body = items["body"].encode() if "body" in items else bytes.fromhex(items["body_hex"])
        envelope, _ = read_properties(json.dumps([items.get(name) for name in _PROPERTIES]), body)
        sent, queue, to, due = envelope.timestamp, *(items.get(name) for name in ("queue", "to", "due"))
        is_time = isinstance(sent, datetime | None) or (type(sent) is Timestamp and 0 <= sent < 2**63)
        texts = [items["exchange"], *(place for place in (queue, to) if place is not None)]
        if not (is_time and len(texts) == 2 and all(isinstance(text, str) for text in texts)) or (to and not due):
            raise ValueError
        check_routing_key(items["key"])
        when = None if due is None else datetime.fromisoformat(due).astimezone(UTC)
        return WaitingMessage(normalize_envelope(envelope), Address(items["exchange"], items["key"]), queue, to, when)
    except PublishFailed as error:
        raise ValueError(str(error)) from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        raise ValueError("it is not a message as `runner export messages` writes it") from None


@contextlib.contextmanager
def _named(path: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = "another process uses it" if isinstance(error, BlockingIOError) else error.strerror or str(error)
        raise TransferFailed(f"{path} cannot be used: {why.lower()}", "check its path and its permissions") from error


@contextlib.contextmanager
def open_locked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for this process alone; a new one is readable by its owner only. Raises TransferFailed."""
    with _named(path):
        file = open(path, "r+b", 0, opener=lambda name, _: os.open(name, os.O_RDWR | os.O_CREAT, 0o600))  # noqa: SIM115
    with file:
        with _named(path):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file


def prepare(file: IO[bytes], path: Path) -> None:
    """Begin a new file, or cut a line that was not finished, for more lines. Raises TransferFailed."""
    head = os.pread(file.fileno(), len(HEADER), 0)
    if not HEADER.startswith(head):
        raise TransferFailed(f"{path} is there already, with something else in it", "choose another name")
    if head != HEADER:
        file.truncate(0)
        append(file, [HEADER])
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # the name of the file is on the disk, too
        os.close(folder)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(b"\n") + 1
    file.truncate(end)
    file.seek(end)


def append(file: IO[bytes], lines: Sequence[bytes]) -> None:
    """Write lines, and return when they are on the disk."""
    left = memoryview(b"".join(lines))
    with _named(file.name):
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())


def read_file(path: Path, start: int, count: int) -> Iterator[tuple[int, str, WaitingMessage]]:
    """Yield messages with the position behind each, and its line for errors. Raises TransferFailed.

    `start` is the position behind the first `count` messages; 0 is the beginning of the file.
    """
    with _named(path), path.open("rb") as file:
        if file.readline(len(HEADER)) != HEADER:
            hint = "write the file first, and then the pipeline" if path.suffix in (".yaml", ".yml") else ""
            raise TransferFailed(f"{path} is not a file of `runner export messages`", hint)
        file.seek(max(start, len(HEADER)) - 1)
        if file.read(1) != b"\n":
            raise TransferFailed(f"{path} is not the file that was imported in part", f"remove {path}.done")
        position = file.tell()
        for number in itertools.count(count + 2):
            if not (line := file.readline(MAX_LINE_BYTES)):
                return
            where, position = f"{path}, line {number}", position + len(line)
            if not line.endswith(b"\n"):
                raise TransferFailed(f"{where}: it has no end", "finish the export: run the same command again")
            try:
                message = read_line(line)
            except ValueError as error:
                raise TransferFailed(f"{where}: {error}", "nothing of it was published; correct it") from None
            yield position, where, message


# Export


class Place(NamedTuple):
    """A queue to export. `wait_ms` is how long messages wait there at most, None for those that wait for a handler."""

    queue: str
    wait_ms: int | None
    dlq: DeadLetterQueue | None


def places(pipelines: Sequence[Pipeline], names: Sequence[str] = ()) -> list[Place]:
    """Return the queues of pipelines, or those with some names, in the order in which messages pass through them.

    A queue with partitions is all of them. Raises UnknownTarget.
    """
    found: dict[str, Place] = {}
    dead = {dlq.name: dlq for dlq in dead_letter_queues(pipelines)}
    parts = {part: name for each in pipelines for name, its in each.partitionings.items() for part in its.names}
    for pipeline in pipelines:
        delays = delay_topology(pipeline.name, *pipeline.destinations.values()).queues
        waits = pipeline.topology.waits(pipeline.wait_prefix)
        waits |= {queue.name: queue.arguments["x-message-ttl"] for queue in delays}
        for queue in (*delays, *pipeline.topology.queues):
            if not queue.exclusive and queue.arguments.get("x-queue-type") != "stream":
                found.setdefault(queue.name, Place(queue.name, waits.get(queue.name), dead.get(queue.name)))
    known = dict.fromkeys(parts.get(name, name) for name, place in found.items() if place.wait_ms is None)
    for name in names:
        if name not in found and name not in known:
            raise unknown_target(name, "queue of the pipeline", known)
    chosen = [place for name, place in found.items() if not names or {name, parts.get(name)} & {*names}]
    return sorted(chosen, key=lambda each: (each.dlq is not None, each.wait_ms is None, -(each.wait_ms or 0)))


@dataclass
class MessageExport:
    """Moves messages from places to a file, until `stop`. Raises TransferFailed, BrokerUnavailable."""

    access: QueueAccess
    places: Sequence[Place]
    file: IO[bytes]
    stop: asyncio.Event
    exported: Counter[str] = field(default_factory=Counter)
    """How many messages of each queue."""

    async def run(self) -> int:
        """Export all, and return how many are left. A second look finds what the broker was moving."""
        for place in self.places:
            counts = await self.access.depth(place.queue)
            if counts is not None and counts.consumers:
                text = (
                    f'a process takes messages from "{place.queue}": some would be handled and exported, out of order'
                )
                raise TransferFailed(text, "stop `runner up` first, or pause its subscribers: runner pause PATH NAME")
        for place in (*self.places, *self.places):
            await self._export(place, await self._ready(place))
        return sum([await self._ready(place) for place in self.places])

    async def _ready(self, place: Place) -> int:
        counts = await self.access.depth(place.queue)
        return 0 if counts is None else counts.messages

    async def _export(self, place: Place, left: int) -> None:
        if not left or self.stop.is_set():
            return
        async with self.access.read(place.queue, GROUP) as browser:
            while not self.stop.is_set() and (group := await _next_group(browser, min(left, GROUP))):
                left -= len(group)
                taken = [each for each in group if UNREADABLE not in each.envelope.headers or place.dlq is not None]
                lines = [_waiting(place, each).as_line() for each in taken]
                await asyncio.to_thread(append, self.file, lines)
                for browsed in taken:
                    await browsed.take()
                await self._ready(place)  # the broker knows by then that they are taken
                self.exported[place.queue] += len(taken)


async def _next_group(browser: Browser, at_most: int) -> list[Browsed]:
    """Return the next messages; none if the queue delivers no more."""
    group: list[Browsed] = []
    size = 0
    while len(group) < at_most and size < GROUP_BYTES and (browsed := await browser.next(STALLED_S)) is not None:
        group.append(browsed)
        size += len(browsed.envelope.body)
    return group


def _waiting(place: Place, browsed: Browsed) -> WaitingMessage:
    envelope, address = browsed.envelope, browsed.address
    due = None if place.wait_ms is None else _due(place.wait_ms, browsed)
    if place.dlq is not None:
        envelope = preserved_copy(parse_dead_letter(envelope, place.dlq))
    headers = {name: value for name, value in envelope.headers.items() if not is_broker_header(name)}
    envelope = envelope._replace(headers=headers)
    if due is None:
        return WaitingMessage(envelope, address, place.queue)
    to = headers.get(DELAY_TO)
    return WaitingMessage(envelope._replace(expiration_ms=None), address, None if to else address.key, to, due)


def _due(wait_ms: int, browsed: Browsed) -> datetime:
    """Return when a message leaves its queue and those behind it, at the latest.

    RabbitMQ does not say since when a message waits. A delayed one says when it was published, in whole seconds.
    """
    headers, sent, now = browsed.envelope.headers, browsed.envelope.timestamp, utc_now()
    behind = delay_in(headers, wait_ms) or timedelta(0)
    if browsed.left_s is not None:
        return now + timedelta(seconds=max(0.0, browsed.left_s)) + behind
    due = now + timedelta(milliseconds=wait_ms) + behind
    if isinstance(sent, datetime) and (delay := delay_in(headers)) is not None:
        due = min(due, max(now + behind, sent + delay + timedelta(seconds=1)))
    return due


# Import


@dataclass
class MessageImport:
    """Publishes the messages of a file, until `stop`. Raises TransferFailed, BrokerUnavailable, TopologyMismatch."""

    transport: Transport
    pipelines: Sequence[Pipeline]
    path: Path
    stop: asyncio.Event
    before: int = 0
    """How many messages were imported by earlier runs."""
    count: int = 0
    """How many are imported."""

    async def run(self, topology: Topology) -> None:
        """Check all lines, declare what is missing, and publish what is not confirmed yet, group by group, in order."""
        with open_locked(self.path.with_name(f"{self.path.name}.done")) as done:
            progress = re.fullmatch(rb"(\d+) (\d+)\n", done.read() or b"0 0\n")
            if progress is None:
                raise TransferFailed(f"{done.name} is not what an import has written", "remove it to import all lines")
            start, self.before = map(int, progress.groups())
            self.count = self.before
            delays = await asyncio.to_thread(self._check, start)
            await self.transport.declare(merge_topologies([topology, *delays.values()]))
            lines = read_file(self.path, start, self.before)
            while not self.stop.is_set() and (group := list(itertools.islice(lines, GROUP))):
                await self._publish(group)
                self.count += len(group)
                done.seek(0)
                append(done, [b"%d %d\n" % (group[-1][0], self.count)])  # it never gets shorter

    async def _publish(self, group: Sequence[tuple[int, str, WaitingMessage]]) -> None:
        sent = [self.transport.publish(*self._addressed(message)) for _, _, message in group]
        results = await asyncio.gather(*sent, return_exceptions=True)
        for (_, where, _), error in zip(group, results, strict=True):
            if isinstance(error, PublishFailed | PublishUnknown):
                raise TransferFailed(f"{where}: {error}", "mend that, and run the same command again") from error
            if error is not None:
                raise error

    def _check(self, start: int) -> Mapping[str, Topology]:
        """Check all lines, and return what holds the delayed messages of each destination."""
        delays: dict[str, Topology] = {}
        for _, where, message in read_file(self.path, start, self.before):
            pipeline = self._pipeline_of(message)
            if pipeline is None:
                text = f'{where}: no pipeline here has "{message.to or message.queue}"; nothing of it was published'
                raise TransferFailed(text, "give the folder with all pipelines of the old broker")
            if message.to is not None and message.to not in delays:
                delays[message.to] = delay_topology(pipeline.name, pipeline.destinations[message.to])
        return delays

    def _pipeline_of(self, message: WaitingMessage) -> Pipeline | None:
        """Return the pipeline that a message waits for: one that takes from its queue, or else one that has it."""
        having = [each for each in self.pipelines if message.to in each.destinations]
        having += [each for each in self.pipelines for queue in each.topology.queues if queue.name == message.queue]
        taking = (each for each in having for item in each.subscribers if message.queue in item.queues)
        return next(itertools.chain(taking, having), None)

    def _addressed(self, message: WaitingMessage) -> tuple[Address, Envelope]:
        """Return where a message goes now, and how. The name of its event replaces the address that it came by."""
        envelope, pipeline, queue = message.envelope, self._pipeline_of(message), message.queue or ""
        assert pipeline is not None
        left_ms = 0 if message.due is None else math.ceil((message.due - utc_now()).total_seconds() * 1000)
        if message.to is not None:
            steps = delay_steps(max(1, left_ms), self.transport.capabilities.delay_rounding)
            headers = without_delay(envelope.headers) | delay_headers(steps, message.to)
            address = Address(step_name(pipeline.delay_prefix, steps[0]), message.address.key)
            return address, envelope._replace(headers=headers)
        for subscriber in pipeline.subscribers:
            if queue in subscriber.queues:
                envelope = envelope._replace(type=subscriber.event_of(*message.address, envelope.type))
        waits = pipeline.topology.waits(pipeline.wait_prefix)
        if left_ms <= 0 or not waits:
            return Address("", queue), envelope
        longer = (name for name, wait_ms in waits.items() if wait_ms >= left_ms)
        own = message.address.exchange  # there it stays behind those that are due before it
        name = own if own in waits else next(longer, [*waits][-1])
        return Address(name, queue), envelope._replace(expiration_ms=min(left_ms, waits[name]))
