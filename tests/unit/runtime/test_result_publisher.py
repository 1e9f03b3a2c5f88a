"""What becomes of a handler's results: published, kept and offered again, answered, or named as what cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from runner import Message, Publish, Reject
from runner.message import Address, Envelope
from runner.pipeline.topology import Binding, Queue, Topology
from runner.runtime.result_publisher import MAX_RESULT_AGE_S
from runner.transports.memory import MemoryBroker, MemoryTransport
from tests.unit.runtime.running import Run, run

QUEUES = """
queues: {q: , first: , second: }
events: {heard: , unheard: , quiet: {unheard: ignore}}
"""
READERS = """
  see_first: {from: first, handler: h:see}
  see_second: {from: second, handler: h:see}
  hear: {from: heard, handler: h:see}
"""


def subscriber(options: str) -> str:
    return f"{QUEUES}subscribers:\n  s: {{from: q, handler: 'h:handle', {options}}}\n{READERS}"


def result_of(
    handle: Callable[..., Any],
    options: str = "to: first",
    *,
    preload: tuple[Envelope, ...] = (Envelope(b"1"),),
    **how: Any,
) -> Run:
    """Handle one message and note what arrives, with its queue."""
    record = Run()

    async def see(payload: Any, message: Message) -> None:
        record.note((message.queue.removeprefix("shop."), payload))

    return run(subscriber(options), {"handle": handle, "see": see}, record, preload=preload, **how)


ONE, TWO = Publish({"n": 1}, to="second"), Publish({"n": 2}, to="second")


def sync_iterator(_: Any) -> Any:
    return iter([ONE, TWO])


def sync_filter(_: Any) -> Any:
    return filter(None, [ONE, TWO])


def sync_generator(_: Any) -> Iterator[Any]:
    yield ONE
    yield [TWO]


async def loop_generator(_: Any) -> Any:
    return (item for item in [ONE, TWO])


async def loop_async_generator(_: Any) -> Any:
    async def items() -> AsyncIterator[Any]:
        yield ONE
        yield TWO

    return items()


def thread_coroutine(_: Any) -> Any:
    async def later() -> Any:
        return iter([ONE, TWO])

    return later()


@pytest.mark.parametrize(
    "handle",
    [
        lambda _: [ONE, TWO],
        lambda _: (ONE, TWO),
        sync_iterator,
        sync_filter,
        sync_generator,
        loop_generator,
        loop_async_generator,
        thread_coroutine,
    ],
)
def test_each_publish_is_published_where_it_says(handle: Callable[..., Any]) -> None:
    """In a list or a tuple, and of everything that is gone through; each with an id of its own."""
    record = result_of(handle)
    assert sorted(record.things, key=repr) == [("second", {"n": 1}), ("second", {"n": 2})]
    assert record.events("message.handled", subscriber="s")[0]["published"] == 2


@pytest.mark.parametrize("result", [[], [1, 2], (1, 2), {"a": [1]}])
def test_a_list_of_other_things_is_one_result(result: Any) -> None:
    """As it was."""
    assert result_of(lambda _: result).things == [("first", list(result) if isinstance(result, tuple) else result)]


@pytest.mark.parametrize(
    "result",
    [[ONE, {"n": 1}], (ONE, None), {"a": ONE}, [[ONE], [TWO]], [{"a": ONE}], Publish([ONE])],
)
def test_a_publish_inside_a_value_is_an_error(result: Any) -> None:
    """Nothing of it is published, the handler is not called again, and the error says what to write."""
    calls = []

    def handle(_: Any) -> Any:
        calls.append(1)
        return result

    record = result_of(handle)
    (dead,) = record.events("message.dead_lettered")
    assert (dead["reason"], dead["attempt"], record.things, calls) == ("invalid-result", 1, [], [1])
    assert "yield each one" in dead["error"]
    assert "exception" not in dead


class Strict(BaseModel):
    """What the first queue takes."""

    n: int


@pytest.mark.parametrize(
    "bad",
    [
        Publish(object(), to="second"),
        Publish("x", to="nowhere"),
        Publish("x", to="second", headers={"a": object()}),
        Publish("x", to="second", headers={"a": "h" * 200_000}),
        Publish("x", to="heard", key="k" * 300),
        Publish("x", to="heard", key=5),  # type: ignore[arg-type]
        Publish(b"x" * (16 * 2**20 + 1), to="second"),
        Publish("x", to=["second"]),  # type: ignore[arg-type]
    ],
)
def test_all_results_are_checked_before_the_first_is_sent(bad: Publish) -> None:
    """An attempt that fails publishes nothing, and what cannot get better is not tried again."""
    calls = []

    def handle(_: Any) -> Iterator[Any]:
        calls.append(1)
        yield "sold"
        yield bad

    record = result_of(handle)
    (dead,) = record.events("message.dead_lettered")
    assert (dead["reason"], record.things, calls) == ("invalid-result", [], [1])


def test_the_authors_error_in_a_result_is_shown_to_them() -> None:
    """With where it was raised."""

    class Odd(BaseModel):
        n: int

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("odd")

        __hash__ = None  # type: ignore[assignment]

    class Headers(dict[str, str]):
        def items(self) -> Any:
            raise RuntimeError("no items")

    record = result_of(lambda _: [Publish("x", headers=Headers(a="b")), Publish("y")])
    (dead,) = record.events("message.dead_lettered")
    assert (dead["reason"], dead["error_type"], dead["error"]) == ("invalid-result", "RuntimeError", "no items")
    assert "no items" in dead["exception"]


def test_a_result_that_no_queue_takes_is_offered_again_and_not_made_again() -> None:
    """By the delays of the policy; after the last time the message is dead-lettered."""
    calls = []

    def handle(_: Any) -> Any:
        calls.append(1)
        return "fact"

    record = result_of(handle, "to: unheard, retry: {attempts: 4, delay: 1s}")
    assert calls == [1]
    retries = record.events("result.retry")
    assert [(line["publish_attempt"], line["delay_ms"], line["attempt"]) for line in retries] == [
        (1, 1000, 1),
        (2, 2000, 1),
        (3, 4000, 1),
    ]
    (dead,) = record.events("message.dead_lettered")
    assert (dead["reason"], dead["error_type"], dead["attempt"]) == ("exhausted", "PublishFailed", 1)
    assert "exception" not in dead
    assert 7 <= record.seconds < 9


@pytest.mark.parametrize("batch", ["", "batch: 1, "])
def test_a_result_is_published_when_its_queue_is_there(batch: str) -> None:
    """What was published before it is not published again; the handler ran once."""
    broker, calls = MemoryBroker(), []

    async def handle(_: Any) -> Any:
        calls.append(1)
        asyncio.get_running_loop().call_later(5, lambda: asyncio.ensure_future(bind()))
        return [Publish("a", to="first"), Publish("b", to="unheard"), Publish("c", to="second")]

    async def bind() -> None:
        transport = MemoryTransport(broker=broker)
        await transport.connect()
        await transport.declare(Topology(queues=(Queue("late"),), bindings=(Binding("events", "late", "unheard"),)))

    options = f"{batch}retry: {{attempts: 5, delay: 2s}}"
    record = result_of(handle, options, broker=broker)
    assert (calls, len(record.events("result.retry"))) == ([1], 2)
    assert [(at > 5, thing) for at, thing in record.notes] == [(False, ("first", "a")), (True, ("second", "c"))]
    assert record.events("message.handled", subscriber="s")[0]["published"] == 3


def test_a_message_is_not_held_for_ever_for_its_results() -> None:
    """RabbitMQ takes back after 30 minutes what is not settled, and its handler would be called again."""
    record = result_of(lambda _: "fact", "to: unheard, retry: {attempts: 1000, delay: 5m, max_delay: 5m}")
    assert [line["reason"] for line in record.events("message.dead_lettered")] == ["exhausted"]
    assert record.seconds < MAX_RESULT_AGE_S + 60


def test_a_message_whose_results_wait_goes_back_at_a_stop() -> None:
    """They are offered once more, at once; the message comes again, and nothing is lost."""
    broker = MemoryBroker()
    record = result_of(lambda _: "fact", "to: unheard, retry: {attempts: 9, delay: 5m}", for_s=10, broker=broker)
    assert record.seconds < 12
    assert record.report is not None
    assert (record.report.totals.released, record.report.totals.dead_lettered) == (1, 0)
    assert record.events("message.dead_lettered") == []


def test_an_event_may_have_no_subscriber() -> None:
    """Where the pipeline says so; for producers, too."""
    record = Run()
    text = subscriber("to: quiet") + "producers: {p: {handler: h:produce, to: [quiet, q]}}\n"
    run(text, {"produce": lambda: [1, 2], "handle": lambda _: "fact", "see": lambda _: None}, record)
    assert (
        record.events("result.retry") + record.events("message.dead_lettered") + record.events("producer.failed") == []
    )
    assert [line["published"] for line in record.events("message.handled")] == [1, 1]
    assert len(record.events("message.published", to="quiet")) == 2


def test_publishing_takes_none_of_the_handlers_time() -> None:
    """Its timeout is for its own work, also where its results are published in pieces while it goes on."""
    broker, calls = MemoryBroker(), []

    async def bind() -> None:
        transport = MemoryTransport(broker=broker)
        await transport.connect()
        await transport.declare(Topology(queues=(Queue("late"),), bindings=(Binding("events", "late", "unheard"),)))

    async def handle(_: Any) -> AsyncIterator[Any]:
        calls.append(1)
        asyncio.get_running_loop().call_later(5, lambda: asyncio.ensure_future(bind()))
        for n in range(1500):
            yield n

    record = result_of(handle, "to: unheard, timeout: 2s, retry: {attempts: 5, delay: 2s}", broker=broker)
    assert calls == [1]
    assert record.events("message.handled")[0]["published"] == 1500


ASKED = Envelope(b"1", message_id="m-1", correlation_id="c-1", reply_to="second")


@pytest.mark.parametrize(
    ("options", "asked", "arrives"),
    [
        ("concurrency: 1", ASKED, ["second"]),
        ("to: first", ASKED, ["first"]),
        ("to: first, reply: true", ASKED, ["first", "second"]),
        ("to: [first, second], reply: true", ASKED, ["first", "second"]),
        ("reply: true", ASKED, ["second"]),
        ("reply: false", ASKED, []),
        ("concurrency: 1", ASKED._replace(reply_to=None), []),
        ("to: first, reply: true", ASKED._replace(reply_to=""), ["first"]),
        ("concurrency: 1", ASKED._replace(reply_to="amq.rabbitmq.reply-to.g1h2AA"), []),
        ("reply: true", ASKED._replace(reply_to="heard"), []),
        ("reply: true", ASKED._replace(reply_to="events"), []),
        ("batch: 1", ASKED, []),
    ],
)
def test_an_answer_goes_to_whom_asked(options: str, asked: Envelope, arrives: list[str]) -> None:
    """By default where there is no `to`. A caller that has gone is no error. Only the name of a queue is an address."""
    record = result_of(lambda _: {"sum": 3}, options, preload=(asked,))
    assert sorted(record.things) == [(queue, {"sum": 3}) for queue in arrives]
    assert len(record.events("message.handled", subscriber="s")) == 1


@pytest.mark.parametrize(("correlation_id", "expected"), [("c-1", "c-1"), (None, "m-1")])
def test_an_answer_has_the_correlation_id_of_its_question(correlation_id: str | None, expected: str) -> None:
    """Or its message id, where it has none."""
    found: list[Any] = []
    text = subscriber("concurrency: 1")
    asked = ASKED._replace(correlation_id=correlation_id)
    handlers = {"handle": lambda _: [Publish("a"), Publish("b", to="second")], "see": see_correlation(found)}
    run(text, handlers, Run(), preload=(asked,))
    assert found == [expected, expected]


def see_correlation(found: list[str | None]) -> Callable[..., None]:
    def see(payload: Any, message: Message) -> None:
        found.append(message.correlation_id)

    return see


def answers_of(
    handle: Callable[..., Any], options: str, *, asked: Envelope = ASKED, **how: Any
) -> tuple[list[tuple[Any, dict[str, Any], str | None]], Run]:
    """Return the answers to one question: payload, headers, correlation id."""
    found: list[tuple[Any, dict[str, Any], str | None]] = []

    def see(payload: Any, message: Message) -> None:
        found.append((payload, dict(message.headers), message.correlation_id))

    record = Run()
    run(subscriber(options), {"handle": handle, "see": see}, record, preload=(asked,), **how)
    return found, record


def reject(_: Any) -> None:
    raise Reject("no such carrier")


def fail(_: Any) -> None:
    raise ConnectionError("amqp://ann:secret@shop\nis away")


def take_number(number: int) -> int:
    return number


@pytest.mark.parametrize(
    ("handle", "options", "reason", "error_type", "error"),
    [
        (reject, "reply: true", "rejected", "Reject", "no such carrier"),
        (reject, "retry: none", "rejected", "Reject", "no such carrier"),
        (fail, "to: first, reply: true, retry: 2", "exhausted", "ConnectionError", "amqp://ann:***@shop\\nis away"),
        (lambda _: object(), "reply: true", "invalid-result", "PublishFailed", "the payload cannot be written as JSON"),
        (take_number, "reply: true", "invalid", "InvalidMessage", "the payload must be a whole number"),
    ],
)
def test_a_caller_learns_that_its_question_is_given_up(
    handle: Callable[..., Any], options: str, reason: str, error_type: str, error: str
) -> None:
    """Once, after the last attempt, in the headers and in the body; and the question is a dead letter as always."""
    asked = ASKED._replace(body=b'"x"', headers={"tenant": "a"})
    [(payload, headers, correlation_id)], record = answers_of(handle, options, asked=asked)
    assert (payload["reason"], payload["error_type"], correlation_id) == (reason, error_type, "c-1")
    assert payload["error"].startswith(error)
    assert headers == {f"x-runner-{name.replace('_', '-')}": value for name, value in payload.items()}
    [dead] = record.events("message.dead_lettered")
    assert (dead["reason"], len(record.events("reply.given_up"))) == (reason, 0)


@pytest.mark.parametrize("options", ["to: first", "reply: false", "batch: 1"])
def test_a_subscriber_that_does_not_answer_says_nothing_of_failures(options: str) -> None:
    found, record = answers_of(reject, options)
    assert (found, len(record.events("message.dead_lettered"))) == ([], 1)


@pytest.mark.parametrize("reply_to", ["amq.gen-of-a-caller", "amq.rabbitmq.reply-to.g1h2AA", "", "full"])
def test_a_failure_without_a_caller_is_a_dead_letter_as_always(reply_to: str) -> None:
    """The caller has gone, forged its address, gave none, or names a queue that takes nothing. Nothing waits for it."""
    asked = ASKED._replace(reply_to=reply_to)
    text = subscriber("reply: true").replace("queues: {", "queues: {full: {max_length: 1, overflow: reject-publish}, ")
    record = Run()

    async def handle(_: Any) -> None:
        transport = MemoryTransport(broker=broker)
        await transport.connect()
        await transport.publish(Address("", "full"), Envelope(b"1"))
        raise Reject("no")

    broker = MemoryBroker()
    run(text, {"handle": handle, "see": lambda _: None}, record, preload=(asked,), broker=broker)
    assert len(record.events("message.dead_lettered")) == 1
    assert [line["to"] for line in record.events("reply.given_up")] == (["full"] if reply_to == "full" else [])
    assert record.seconds < 1


@pytest.mark.parametrize(
    ("result", "options", "expected"),
    [
        (None, "reply: true", [None]),
        ([], "reply: true", [[]]),
        (None, "to: first, reply: true", [None]),
        (None, "concurrency: 1", []),
        (iter(()), "reply: true", [None]),
        (Publish(1, to="first"), "reply: true", [1]),
    ],
)
def test_a_responder_answers_also_without_a_result(result: Any, options: str, expected: list[Any]) -> None:
    """With null, which says that it is done. One that publishes something elsewhere may leave the answer to others."""
    found, record = answers_of(lambda _: result, options)
    assert [payload for payload, *_ in found] == expected
    assert len(record.events("message.handled", subscriber="s")) == 1


def test_a_handler_may_answer_by_itself() -> None:
    """To the message's own `reply_to`, declared or not; another address that is none of the pipeline's is an error."""

    def handle(_: Any, message: Message) -> Any:
        return Publish("answer", to=message.reply_to)

    gone = ASKED._replace(reply_to="amq.gen-of-a-caller")
    assert len(result_of(handle, "to: first", preload=(gone,)).events("message.handled", subscriber="s")) == 1
    assert result_of(handle, "to: first", preload=(ASKED,)).things == [("second", "answer")]
    record = result_of(lambda _: Publish("answer", to="another"), "to: first", preload=(gone,))
    assert [line["reason"] for line in record.events("message.dead_lettered")] == ["invalid-result"]


def test_the_event_is_known_after_a_retry() -> None:
    """Retries come by the default exchange, and say where they came from."""
    broker, found = MemoryBroker(), []

    def hear(payload: Any, message: Message) -> None:
        found.append((message.event, message.attempt, message.exchange))
        if message.attempt == 1:
            raise ValueError("once")

    async def handle(_: Any) -> None:
        transport = MemoryTransport(broker=broker)
        await transport.connect()
        await transport.publish(Address("events", "heard"), Envelope(b"{}", type="com.example.Heard"))

    run(subscriber("concurrency: 1"), {"handle": handle, "see": hear}, Run(), preload=(Envelope(b"1"),), broker=broker)
    assert found == [("heard", 1, "events"), ("heard", 2, "")]


def test_a_publish_without_any_destination_is_an_invalid_result() -> None:
    """It is meant to be published: the message is dead-lettered at once, with what to write."""
    record = result_of(lambda _: Publish({"n": 1}), "retry: {attempts: 3}")
    [line] = record.events("message.dead_lettered", subscriber="s")
    assert line["reason"] == "invalid-result"
    assert line["error"].startswith("a Publish has no destination: neither it nor the subscriber has a `to`; write ")


def test_a_misspelt_destination_is_named_with_the_one_that_is_meant() -> None:
    record = result_of(lambda _: Publish(1, to="secnd"), "retry: {attempts: 3}")
    [line] = record.events("message.dead_lettered", subscriber="s")
    assert line["error"].endswith('is called "secnd"; did you mean "second"?')


def test_a_value_that_goes_nowhere_is_reported_once() -> None:
    """The messages are handled all the same."""
    record = result_of(lambda _: 5, "retry: none", preload=(Envelope(b"1"), Envelope(b"2")))
    assert len(record.events("message.handled", subscriber="s")) == 2
    [line] = record.events("result.dropped")
    assert line["level"] == "warning"


@pytest.mark.parametrize(
    ("result", "options"), [(5, "reply: true"), (Publish(5), "reply: true"), (None, "retry: none")]
)
def test_an_answer_without_a_caller_is_no_mistake(result: Any, options: str) -> None:
    """Nor is no result."""
    record = result_of(lambda _: result, options)
    assert len(record.events("message.handled", subscriber="s")) == 1
    assert record.events("result.dropped") == []
