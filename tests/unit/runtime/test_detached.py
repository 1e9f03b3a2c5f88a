"""A message whose handler is done waits for its result's confirm without a task. Nothing else may differ by that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.backoff import backoff_delays
from runner.errors import PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.runtime import publisher
from runner.runtime.execution import Execution
from runner.transports.base import OnPublished, PublishStarted
from runner.transports.memory import MemoryTransport
from tests.unit.runtime.running import Run, run

Answer = tuple[float, str]
"""After how many seconds a publication ends, and how."""

ENDS = ("confirmed", "refused", "invalid", "unknown")
MESSAGES = 6

answers = st.lists(st.tuples(st.sampled_from((0.0, 0.5, 2.0, 60.0)), st.sampled_from(ENDS)), max_size=3)
plans = st.lists(answers, min_size=MESSAGES, max_size=MESSAGES)


def end_of(how: str) -> Exception | None:
    errors: dict[str, Exception] = {
        "refused": PublishFailed("full", reason="refused"),
        "invalid": PublishFailed("too large", reason="invalid"),
        "unknown": PublishUnknown("the broker was lost"),
    }
    return errors.get(how)


class LateTransport(MemoryTransport):
    """Its publications to `results` end as planned: later than they are sent, as on RabbitMQ, or with an error."""

    def __init__(self, plan: Sequence[Sequence[Answer]], **options: Any) -> None:
        super().__init__(**options)
        self._left = [list(each) for each in plan]

    def publish_nowait(self, address: Address, envelope: Envelope, on_published: OnPublished) -> PublishStarted:
        left = self._left[int(envelope.body)] if address.key == "results" else []
        if not left:
            return super().publish_nowait(address, envelope, on_published)
        delay_s, how = left.pop(0)
        if how == "confirmed" and (begun := super().publish_nowait(address, envelope, on_published)) != "confirmed":
            return begun
        asyncio.get_running_loop().call_later(delay_s, on_published, end_of(how))
        return "started"


def outcome(plan: Sequence[Sequence[Answer]], options: str, failing: frozenset[int], for_s: float | None) -> list[Any]:
    """Return what happened and when, in virtual time: calls, results that arrived, log lines, and the counts.

    With several handlers at a time, what happens at one moment has no order.
    """
    record, running, most = Run(), 0, 0

    async def handle(number: int) -> int:
        nonlocal running, most
        record.note(f"call {number}")
        running += 1
        most = max(most, running)
        await asyncio.sleep(number % 2)
        running -= 1
        if number in failing:
            raise ValueError(number)
        return number

    async def see(number: int) -> None:
        record.note(f"result {number}")

    text = (
        "queues: {q: , results: }\nsubscribers:\n"
        f"  s: {{from: q, to: results, handler: 'h:handle', {options}}}\n  see: {{from: results, handler: 'h:see'}}\n"
    )
    run(
        text,
        {"handle": handle, "see": see},
        record,
        for_s=for_s,
        preload=tuple(Envelope(str(number).encode(), f"id-{number}") for number in range(MESSAGES)),
        make_transport=lambda **given: LateTransport(plan, **given),
    )
    varying = {"timestamp", "duration_ms", "at"}
    lines = [{name: value for name, value in line.items() if name not in varying} for line in record.lines]
    by_subscriber = [str(line) for name in ("s", "see", None) for line in lines if line.get("subscriber") == name]
    notes = [[note for note in record.notes if note[1].startswith(what)] for what in ("call", "result")]
    if options != "concurrency: 1":
        notes, by_subscriber = [sorted(each) for each in notes], sorted(by_subscriber)
    return [notes, by_subscriber, most, record.report]


@settings(max_examples=25)
@given(
    plan=plans,
    options=st.sampled_from(
        (
            "concurrency: 1",
            "concurrency: 3",
            "concurrency: 3, retry: {attempts: 2, delay: 1s}",
            "concurrency: 2, order_by: n, prefetch: 4",
            "concurrency: 4, prefetch: 4, retry: none",
        )
    ),
    failing=st.frozensets(st.integers(0, MESSAGES - 1), max_size=2),
    for_s=st.sampled_from((None, 1.25, 4.0)),
)
def test_nothing_depends_on_who_waits_for_the_confirm(
    plan: list[list[Answer]], options: str, failing: frozenset[int], for_s: float | None
) -> None:
    """Calls, their times and order, retries, dead letters, log lines, and what a stop leaves in the queue."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher, "backoff_delays", partial(backoff_delays, draw=max))  # else delays are random
        detached = outcome(plan, options, failing, for_s)
        patch.setattr(Execution, "may_detach", False)
        assert detached == outcome(plan, options, failing, for_s)
