"""Entry: what RabbitMQ itself gives one connection, read by hand from a blocking socket. Nobody should work like this.

It looks at frame headers only, decodes the JSON, and acknowledges a quarter of the prefetch at once; publishing sends
what the window allows and reads confirms. No heartbeats, no returns, no errors, no bodies of several frames.
"""

from __future__ import annotations

import functools
import json
import socket
import struct
from datetime import UTC, datetime
from urllib.parse import urlsplit

from pamqp import commands, frame, header
from pamqp.base import Frame

from benchmarks.entries.job import WINDOW, Entry, Job, module
from benchmarks.entries.job import body as payload
from benchmarks.ledger import from_environment

RAW_SOCKET = Entry(
    name="broker's limit (raw socket)",
    command=module(__spec__.name),
    works=frozenset({"consume", "publish"}),
    share=5.0,
)

CHANNEL = 1
BODY = 3
HEAD = struct.Struct(">BHL")
"""Type, channel and size of a frame; one more byte ends it."""
INDEX = struct.Struct(">HH")
"""Class and method, with which a method frame begins."""
CONFIRM = struct.Struct(">HHQB")
CHUNK = 1 << 17
MOST = CHUNK - 8
"""What a frame of the largest size carries."""


class Connection:
    """A connection with one channel."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self._ready: list[tuple[int, bytes]] = []
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._wait_for(commands.Connection.Start)
        login = f"\x00{parts.username}\x00{parts.password}"
        self.call(commands.Connection.StartOk({}, "PLAIN", login, "en_US"), commands.Connection.Tune, 0)
        self.send(commands.Connection.TuneOk(2047, CHUNK, 0), 0)
        self.call(commands.Connection.Open("/"), commands.Connection.OpenOk, 0)
        self.call(commands.Channel.Open(), commands.Channel.OpenOk)

    def send(self, method: Frame, channel: int = CHANNEL) -> None:
        """Send a method."""
        self.send_bytes(frame.marshal(method, channel))

    def send_bytes(self, frames: bytes) -> None:
        """Send frames that are ready to be sent."""
        self._socket.sendall(frames)

    def call(self, method: Frame, answer: type[Frame], channel: int = CHANNEL) -> None:
        """Send a method and wait for its answer."""
        self.send(method, channel)
        self._wait_for(answer)

    def read(self) -> list[tuple[int, bytes]]:
        """Return type and content of the frames that one more reading completes."""
        if self._ready:
            ready, self._ready = self._ready, []
            return ready
        data, at, found = self._unread + self._socket.recv(CHUNK), 0, []
        while len(data) - at > HEAD.size:
            kind, _, size = HEAD.unpack_from(data, at)
            end = at + HEAD.size + size
            if end >= len(data):
                break
            found.append((kind, data[at + HEAD.size : end]))
            at = end + 1
        self._unread = data[at:]
        return found

    def close(self) -> None:
        """Close in good order: the broker has handled all that was sent before."""
        self.call(commands.Connection.Close(200, "", 0, 0), commands.Connection.CloseOk, 0)
        self._socket.close()

    def _wait_for(self, wanted: type[Frame]) -> None:
        while True:
            found = self.read()
            for position, (_, content) in enumerate(found):
                class_id, method_id = INDEX.unpack_from(content)
                if class_id << 16 | method_id == wanted.index:
                    self._ready = found[position + 1 :]
                    return


def consume(job: Job, connection: Connection) -> None:
    """Handle `job.count` messages. Delivery tags count from 1, so that nothing but bodies has to be looked at."""
    ledger, handled, batch = from_environment(), 0, max(1, job.prefetch // 4)
    connection.call(commands.Basic.Qos(0, job.prefetch), commands.Basic.QosOk)
    connection.call(commands.Basic.Consume(0, job.source, "raw"), commands.Basic.ConsumeOk)
    while handled < job.count:
        for kind, content in connection.read():
            if kind == BODY:
                ledger.note(json.loads(content)["number"])
                handled += 1
                if handled % batch == 0 or handled == job.count:
                    connection.send(commands.Basic.Ack(handled, True))


def publish(job: Job, connection: Connection) -> None:
    """Publish, and note what is confirmed."""
    ledger, sent, open_tags = from_environment(), 0, set[int]()
    connection.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
    head = frame.marshal(commands.Basic.Publish(0, "", job.target), CHANNEL)
    ledger.begin()
    while open_tags or sent < job.count:
        if room := min(WINDOW - len(open_tags), job.count - sent):
            connection.send_bytes(b"".join(head + _content(number) for number in range(sent, sent + room)))
            open_tags.update(range(sent + 1, sent + room + 1))
            sent += room
        for _, content in connection.read():
            _, _, tag, is_multiple = CONFIRM.unpack_from(content)
            for confirmed in [known for known in open_tags if known <= tag] if is_multiple else [tag]:
                open_tags.remove(confirmed)
                ledger.note(confirmed - 1)


def _content(number: int) -> bytes:
    content = json.dumps(payload(number)).encode()
    return _header(len(content)) + HEAD.pack(BODY, CHANNEL, len(content)) + content + b"\xce"


@functools.cache
def _header(size: int) -> bytes:
    properties = commands.Basic.Properties(content_type="application/json", delivery_mode=2)
    return frame.marshal(header.ContentHeader(0, size, properties), CHANNEL)


def published(queue: str, number: int, content: bytes) -> bytes:
    """Return the frames that publish a persistent message with an id and a time, of whatever size."""
    said = commands.Basic.Properties(
        content_type="application/json", delivery_mode=2, message_id=f"{number:032x}", timestamp=datetime.now(UTC)
    )
    frames = [_publish_method(queue), frame.marshal(header.ContentHeader(0, len(content), said), CHANNEL)]
    for at in range(0, len(content), MOST):
        piece = content[at : at + MOST]
        frames.append(HEAD.pack(BODY, CHANNEL, len(piece)) + piece + b"\xce")
    return b"".join(frames)


@functools.cache
def _publish_method(queue: str) -> bytes:
    return frame.marshal(commands.Basic.Publish(0, "", queue), CHANNEL)


def _main(job: Job) -> None:
    connection = Connection(job.url)
    if job.work == "publish":
        publish(job, connection)
    else:
        consume(job, connection)
    connection.close()


if __name__ == "__main__":
    _main(Job.from_environment())
