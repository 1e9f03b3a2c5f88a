"""Runs a pipeline on the in-process broker and a clock that jumps: seconds of waiting take no time."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runner import log
from runner.config.loader import load_text
from runner.message import Address, Envelope
from runner.pipeline.model import Pipeline
from runner.pipeline.resolver import resolve
from runner.runtime.supervisor import RunReport, Supervisor
from runner.transports.memory import MemoryBroker, MemoryTransport
from tests.unit.transports.virtual_time import run_virtually

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Run:
    """What happened: log lines, what handlers noted with `note`, and the report."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    notes: list[tuple[float, Any]] = field(default_factory=list)
    report: RunReport | None = None
    seconds: float = 0.0

    def note(self, thing: Any) -> None:
        """Remember something with the time (seconds since the start) at which it happened."""
        self.notes.append((round(asyncio.get_running_loop().time(), 3), thing))

    @property
    def things(self) -> list[Any]:
        return [thing for _, thing in self.notes]

    def events(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            line for line in self.lines if line["event"] == event and all(line.get(k) == v for k, v in fields.items())
        ]


def pipeline(text: str, handlers: Mapping[str, object], name: str = "shop") -> Pipeline:
    """Resolve a pipeline whose handlers are these functions, under the module name `h`."""
    module = types.ModuleType("h")
    vars(module).update(handlers)
    sys.modules["h"] = module
    try:
        resolved = resolve(load_text(f"version: 1\nname: {name}\n{text}", Path(f"{name}.yaml"), {}))
    finally:
        del sys.modules["h"]
    assert resolved.pipeline is not None, resolved.problems
    return resolved.pipeline


def numbers(count: int) -> Callable[[], Awaitable[list[dict[str, int]]]]:
    """Return a producer of `count` orders, with three keys in turn."""

    async def produce() -> list[dict[str, int]]:  # on the loop: the clock would jump while a thread is at work
        return [{"n": number, "key": number % 3} for number in range(count)]

    return produce


def one_queue(subscriber: str = "", *, producer: str | None = "", queue: str = "") -> str:
    """Return a pipeline of a queue `q`, a producer `p` and a subscriber `s`, each with these options.

    Their handlers are `h:produce` and `h:handle`. There is no producer if its options are None.
    """
    text = f"queues: {{q: {{{queue}}}}}\n"
    if producer is not None:
        text += f"producers: {{p: {{handler: 'h:produce', to: q, {producer}}}}}\n"
    return text + f"subscribers: {{s: {{from: q, handler: 'h:handle', {subscriber}}}}}\n"


def run(
    text: str,
    handlers: Mapping[str, object],
    record: Run,
    *,
    for_s: float | None = None,
    broker: MemoryBroker | None = None,
    preload: Sequence[Envelope] = (),
    clock_start: datetime = START,
    make_transport: Callable[..., MemoryTransport] = MemoryTransport,
) -> Run:
    """Run until idle, or for a number of virtual seconds. The pipeline's clock starts at `clock_start`.

    The messages of `preload` are in the queue `q` before the start.
    """
    made = pipeline(text, handlers)
    out = io.StringIO()
    log.configure(format="json", stream=out)

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def now() -> datetime:
            return clock_start + timedelta(seconds=loop.time())

        transport = make_transport(broker=broker, clock=now)
        await transport.connect()
        await transport.declare(made.topology)
        for envelope in preload:
            await transport.publish(Address("", "q"), envelope)
        supervisor = Supervisor([made], transport, until_idle=for_s is None, now=now)
        await supervisor.start()
        stop = asyncio.Event()
        if for_s is not None:
            loop.call_later(for_s, stop.set)
        await supervisor.wait(stop)
        record.report = await supervisor.drain()

    record.seconds = run_virtually(main)
    record.lines += [json.loads(line) for line in out.getvalue().splitlines()]
    return record
