"""The publisher of the latency benchmark: it keeps to its schedule whatever the consumer does, and is the same for all.

python -m benchmarks.paced_publisher URL QUEUE RATE COUNT

Each body has `sent`, the monotonic time just before its bytes went out. Prints how late the schedule was kept (JSON).
"""

from __future__ import annotations

import json
import sys
import time

from pamqp import commands, frame, header

from benchmarks.entries.job import body
from benchmarks.entries.raw_socket import BODY, CHANNEL, HEAD, Connection


def publish(url: str, queue: str, rate: float, count: int) -> list[float]:
    """Publish so many messages a second, and return how late each was, in seconds."""
    connection, late = Connection(url), []
    method = frame.marshal(commands.Basic.Publish(0, "", queue), CHANNEL)
    first = time.monotonic() + 0.1
    for number in range(count):
        due = first + number / rate
        if (ahead := due - time.monotonic()) > 0:
            time.sleep(ahead)
        now = time.monotonic()
        content = json.dumps({**body(number), "sent": now}).encode()
        connection.send_bytes(method + _properties(number, len(content)) + _frame(content))
        late.append(now - due)
    connection.close()
    return late


def _properties(number: int, size: int) -> bytes:
    said = commands.Basic.Properties(content_type="application/json", delivery_mode=2, message_id=f"{number:032x}")
    return frame.marshal(header.ContentHeader(0, size, said), CHANNEL)


def _frame(content: bytes) -> bytes:
    return HEAD.pack(BODY, CHANNEL, len(content)) + content + b"\xce"


def main() -> None:
    """Publish, and print how late."""
    url, queue, rate, count = sys.argv[1:]
    late = sorted(publish(url, queue, float(rate), int(count)))
    print(json.dumps({"p99_s": late[int(len(late) * 0.99)], "worst_s": late[-1]}))


if __name__ == "__main__":
    main()
