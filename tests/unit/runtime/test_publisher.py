"""The ids of what is published: the same for a second attempt, and for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from hashlib import blake2b
from itertools import combinations, count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import Message, Publish
from runner.errors import PublishFailed
from runner.message import Address, Envelope
from runner.pipeline.model import Destination
from runner.runtime.publisher import PipelinePublisher, result_origin
from runner.transports.amqp_limits import normalize_envelope

WORDS = st.text("a:\0(',)1", max_size=4)


def destination(name: str) -> Destination:
    return Destination(name, Address("", name), False, lambda payload: (str(payload).encode(), "text/plain"))


ITEMS = PipelinePublisher(
    None,  # type: ignore[arg-type]  # nothing is published
    app_id="shop",
    destinations={},
    new_id=lambda: "new",
    now=lambda: datetime(2026, 3, 1, tzinfo=UTC),
)


def ids(parents: list[Envelope] | None, seed: str, *to: str) -> list[str | None]:
    numbers = count()
    transport: Any = None  # nothing is published
    publisher = PipelinePublisher(
        transport,
        app_id="shop",
        destinations={},
        new_id=lambda: f"new {next(numbers)}",
        now=lambda: datetime(2026, 3, 1, tzinfo=UTC),
    )
    origin = result_origin(parents) if parents else None
    found = publisher.prepare(["ok"], tuple(map(destination, to)), origin=origin, seed=seed)
    return [outgoing.envelope.message_id for outgoing in found]


def message(message_id: str | None, body: bytes = b"") -> Envelope:
    return Envelope(body, message_id=message_id)


def test_a_second_attempt_gives_the_same_ids() -> None:
    assert ids([message("1", b"x")], "s", "a", "b") == ids([message("1", b"x")], "s", "a", "b")


def test_all_that_identifies_a_result_is_in_its_id() -> None:
    """Two messages with one id, two places, two destinations, two batches that begin with the same message."""
    different = [
        ids([message("1")], "s", "a"),
        ids([message("1", b"x")], "s", "a"),
        ids([message("2")], "s", "a"),
        ids([message("1")], "t", "a"),
        ids([message("1")], "s", "b"),
        ids([message("1"), message("2")], "s", "a"),
        ids([message("1"), message("3")], "s", "a"),
        ids([message("2"), message("1")], "s", "a"),
        ids(None, "s", "a"),
    ]
    assert all(one != other for one, other in combinations(different, 2))


def test_what_comes_from_a_message_without_an_id_has_a_new_one() -> None:
    """Also where others of the batch have one: nothing tells this batch from another."""
    assert ids([message(None)], "s", "a", "b") == ["new 0", "new 1"]
    assert ids([message("1"), message(None)], "s", "a") == ["new 0"]


def items(seed: str, before: int) -> Sequence[Envelope]:
    found = ITEMS.prepare(["ok"], (destination("a"),), seed=seed, before=before)
    return [outgoing.envelope for outgoing in found]


def test_an_items_id_is_the_hash_of_its_run_number_destination_and_body() -> None:
    """Also when runs take turns, and in the next version: a restarted producer must not publish everything again."""
    for seed, number in (("run 1", 0), ("run 1", 1), ("run 2", 0), ("run 1", 2)):
        (item,) = items(seed, number)
        assert item.message_id == blake2b(f"{seed}:{number}:a\0ok".encode(), digest_size=16).hexdigest()


def test_what_is_made_of_a_checked_item_is_checked_again() -> None:
    (_, checked) = (*items("run", 0), *items("run", 1))
    assert normalize_envelope(checked) is checked
    for change in ({"message_id": "x" * 300}, {"priority": 256}, {"headers": {"n": object()}}, {"app_id": "\ud800"}):
        with pytest.raises(PublishFailed):
            normalize_envelope(checked._replace(**change))
    local = checked._replace(timestamp=datetime(2026, 3, 1, 12, 0, 0, 5, timezone(timedelta(hours=2))))
    assert normalize_envelope(local).timestamp == datetime(2026, 3, 1, 10, tzinfo=UTC)


@given(one=st.tuples(WORDS, WORDS), other=st.tuples(WORDS, WORDS))
def test_names_with_any_characters_are_not_mixed_up(one: tuple[str, str], other: tuple[str, str]) -> None:
    """`a:b` with `c` is not `a` with `b:c`."""
    same = ids([message("1")], f"{one!r}0", "q") == ids([message("1")], f"{other!r}0", "q")
    assert same == (one == other)


def results_of_a_batch(parents: list[Envelope], *of: Envelope) -> list[tuple[str | None, str | None]]:
    """Return id and correlation id of one result for each message in `of`."""
    transport: Any = None
    publisher = PipelinePublisher(
        transport, app_id="shop", destinations={}, new_id=lambda: "new", now=lambda: datetime(2026, 3, 1, tzinfo=UTC)
    )
    results = [Publish("ok", of=Message(1, id=each.message_id, correlation_id=each.correlation_id)) for each in of]
    found = publisher.prepare(results, (destination("a"),), origin=result_origin(parents), seed="s")
    return [(each.envelope.message_id, each.envelope.correlation_id) for each in found]


def test_a_result_of_one_message_of_a_batch_is_that_messages_own() -> None:
    """Its correlation id, and the same id whatever else is in the batch of the next attempt."""
    one, two, three = Envelope(b"1", "1", "flow-1"), Envelope(b"2", "2"), Envelope(b"3", "3", "flow-3")
    (first, first_again), (second, _), (third, third_flow) = results_of_a_batch([one, two, three], one, two, three)
    assert (first_again, third_flow) == ("flow-1", "flow-3")
    assert results_of_a_batch([three, two], two, three) == [(second, "2"), (third, "flow-3")]
    twice = results_of_a_batch([one], one, one)
    assert twice[0] == (first, "flow-1")
    assert twice[1][0] != first
    with pytest.raises(PublishFailed, match="did not get"):
        results_of_a_batch([one], two)
