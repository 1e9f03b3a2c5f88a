"""The publisher of the latency benchmark: it keeps to its schedule whatever the consumer does, and is the same for all.

python -m benchmarks.paced_publisher URL QUEUE RATE COUNT

Each body has `sent`, the monotonic time just before its bytes went out. Prints how late the schedule was kept (JSON).
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.entries.job import body
from benchmarks.entries.raw_socket import Connection, published


def publish(url: str, queue: str, rate: float, count: int) -> list[float]:
    """Publish so many messages a second, and return how late each was, in seconds."""
    connection, late = Connection(url), []
    first = time.monotonic() + 0.1
    for number in range(count):
        due = first + number / rate
        if (ahead := due - time.monotonic()) > 0:
            time.sleep(ahead)
        now = time.monotonic()
        content = json.dumps({**body(number), "sent": now}).encode()
        connection.send_bytes(published(queue, number, content))
        late.append(now - due)
    connection.close()
    return late


def main() -> None:
    """Publish, and print how late."""
    url, queue, rate, count = sys.argv[1:]
    late = sorted(publish(url, queue, float(rate), int(count)))
    print(json.dumps({"p99_s": late[int(len(late) * 0.99)], "worst_s": late[-1]}))


if __name__ == "__main__":
    main()
