"""The ladder of delays: which steps make a delay, and what is declared for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.message import DELAY_TO, MAX_DELAY_S
from runner.pipeline.delays import STEPS_MS, delay_headers, delay_in, delay_steps, delay_topology
from runner.pipeline.topology import Topology
from tests.unit.pipeline.shop_pipelines import pipeline, problems

LONGEST_MS = round(MAX_DELAY_S * 1000)
TO_REMINDERS = """
queues: {orders: , reminders: }
subscribers:
  plan: {from: orders, handler: 'H:handle', to: {name: reminders, delay: 2h}}
  remind: {from: reminders, handler: 'H:handle'}
"""


@given(st.integers(1, LONGEST_MS))
def test_a_delay_is_never_short_and_as_exact_as_promised(milliseconds: int) -> None:
    """At most half a percent or one step too long; the rest of one percent or 100 ms is for the broker."""
    late = sum(delay_steps(milliseconds, 0.005)) - milliseconds
    assert 0 <= late <= max(STEPS_MS[0], 0.005 * milliseconds + STEPS_MS[0])
    assert 0 <= sum(delay_steps(milliseconds, 0.0)) - milliseconds < STEPS_MS[0]


@given(st.integers(1, LONGEST_MS))
def test_each_step_is_used_once_and_the_longest_first(milliseconds: int) -> None:
    """A message never comes into a queue twice: RabbitMQ would take that for a cycle, and drop it."""
    steps = delay_steps(milliseconds, 0.005)
    assert list(steps) == sorted(set(steps), reverse=True)
    assert set(steps) <= set(STEPS_MS)
    assert len(steps) <= 9


def test_headers_say_how_long_a_message_is_delayed() -> None:
    headers = delay_headers(delay_steps(7_350, 0.0), "reminders")
    found = delay_in(headers)
    assert found is not None
    assert found.total_seconds() == 7.35
    assert headers[DELAY_TO] == "reminders"
    assert delay_in({}) is None


def test_a_pipeline_without_delays_declares_nothing_for_them() -> None:
    found = pipeline("queues: {q: }\nsubscribers: {s: {from: q, handler: 'H:handle'}}\n")
    assert delay_topology("shop") == Topology()
    assert not [queue.name for queue in found.topology.queues if ".delay" in queue.name]


def test_a_delay_in_the_file_is_declared_at_the_start() -> None:
    """One queue for each step, whatever the delays, and one for each destination."""
    found = {queue.name: queue for queue in pipeline(TO_REMINDERS).topology.queues if ".delay." in queue.name}
    assert [*found] == [*(f"shop.delay.{step}" for step in STEPS_MS), "shop.delay.to.reminders"]
    for queue in found.values():
        assert queue.arguments["x-queue-type"] == "quorum"
        assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
        assert queue.arguments["x-overflow"] == "reject-publish"
    assert found["shop.delay.100"].arguments["x-dead-letter-exchange"] == "shop.delay.50"
    assert found["shop.delay.50"].arguments["x-dead-letter-exchange"] == "shop.delay.to"
    assert found["shop.delay.to.reminders"].arguments["x-dead-letter-exchange"] == ""


def test_the_key_delays_declares_what_only_code_publishes_to() -> None:
    text = "delays: q\nqueues: {q: }\nsubscribers: {s: {from: q, handler: 'H:handle'}}\n"
    assert "shop.delay.to.q" in [queue.name for queue in pipeline(text).topology.queues]
    assert ("unknown-name", "delays") in [item[:2] for item in problems(text.replace("delays: q", "delays: other"))]


def test_an_event_that_may_go_unheard_holds_nothing_up() -> None:
    """Nothing waits for a queue that need not exist."""
    text = "delays: late\nevents: {late: {unheard: ignore}}\nsubscribers: {s: {from: late, handler: 'H:handle'}}\n"
    found = {queue.name: queue for queue in pipeline(text).topology.queues}["shop.delay.to.late"]
    assert "x-dead-letter-strategy" not in found.arguments
    assert found.arguments["x-dead-letter-exchange"] == "events"


def test_names_that_become_too_long_are_refused() -> None:
    """AMQP takes names of 255 bytes."""
    for length, is_too_long in ((240, False), (242, True)):
        name = "q" * length
        found = problems(f"delays: {name}\nqueues: {{{name}: {{dead_letter: false}}}}\n")
        assert [item[:2] for item in found if item[0] == "bad-name"] == [("bad-name", "delays")] * is_too_long
