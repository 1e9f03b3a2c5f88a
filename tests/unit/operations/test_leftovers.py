"""Whose a queue is, by its name alone: a pipeline's own, or perhaps that of another whose name begins the same."""

from __future__ import annotations

import pytest

from runner.operations.leftovers import (
    classify,
    count_retrying_messages,
    describe,
    pipeline_names_in,
    without_dead_letter_sources,
)
from runner.operations.plan import compute_plan
from runner.pipeline.topology import Binding, Topology
from runner.transports.broker_state import BrokerState, ExistingItem, LeftoverQueue, LiveBinding

TO_EVENTS = LiveBinding(Binding("events", "shop.email", "order.paid"), "order.paid")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("shop.email", "queue"),
        ("shop.email.dead", "queue"),
        ("shop.email.recreating", "queue"),
        ("shop.email.dead.recreating", "queue"),
        ("shop.retry.1000", "wait"),
        ("shop.retry.soon", "doubtful"),
        ("shop.retry", "queue"),
        ("shop.producers", "leadership"),
        ("shop.send.email", "doubtful"),
        ("shop.eu.email", None),
        ("shop.eu.producers", None),
        ("shop.eu.retry.1000", None),
        ("shop.eu", "queue"),
        ("shop", None),
        ("shopping.email", None),
        ("billing.email", None),
    ],
)
def test_a_name_tells_what_a_queue_is_to_a_pipeline(name: str, kind: str | None) -> None:
    assert classify(name, ("shop",), {"shop", "shop.eu"}) == kind


def test_the_longest_name_owns_a_queue() -> None:
    """Whichever of the two is asked, and whether the other is asked as well or has only left traces."""
    assert classify("shop.eu.email", ("shop.eu",), {"shop"}) == "queue"
    assert classify("shop.eu.email", ("shop", "shop.eu"), ()) == "queue"
    assert classify("shop.eu.email", ("shop",), ()) == "doubtful"


def test_pipelines_leave_traces() -> None:
    names = ["shop.producers", "shop.eu.retry.1000", "orders", "shop.eu.email", "retry.5", "producers"]
    assert pipeline_names_in(names) == {"shop", "shop.eu"}


@pytest.mark.parametrize(
    ("stray", "text"),
    [
        (LeftoverQueue("shop.email", 1, 0, bindings=(TO_EVENTS,)), "1 message, 0 consumers, bound to events"),
        (
            LeftoverQueue("shop.email", 0, 1, unacked=3),
            "0 messages, 3 unacknowledged, 1 consumer, bound to no exchange",
        ),
        (
            LeftoverQueue("shop.email", 0, 0, bindings=(TO_EVENTS, TO_EVENTS)),
            "0 messages, 0 consumers, bound to events",
        ),
    ],
)
def test_what_is_left_is_said_in_one_line(stray: LeftoverQueue, text: str) -> None:
    assert describe(stray) == f'queue "shop.email" is not in the pipeline: {text}'


def test_a_plan_counts_what_is_surely_left_and_only_mentions_the_rest() -> None:
    """What belongs to another pipeline is not mentioned; a queue in use or with messages says what to do."""
    strays = (
        LeftoverQueue("shop.email", 1, 0),
        LeftoverQueue("shop.mail", 0, 1),
        LeftoverQueue("shop.old", 0, 0),
        LeftoverQueue("shop.retry.1000", 0, 0),
        LeftoverQueue("shop.producers", 1, 0),
        LeftoverQueue("shop.send.email", 0, 0),
        LeftoverQueue("shop.eu.email", 5, 0),
    )
    names = frozenset({*(stray.name for stray in strays), "shop.eu.retry.1000"})
    observed = BrokerState({}, {}, (), leftovers=strays, all_queues=names, management="http://rabbit")
    found = compute_plan(Topology(), observed, ["shop"])
    assert [(item.name, item.action, item.messages) for item in found.items] == [
        ("shop.email", "extra", 1),
        ("shop.mail", "extra", 0),
        ("shop.old", "extra", 0),
    ]
    holding, used, empty = (item.details for item in found.items)
    assert "`--prune-queue shop.email`, which deletes them" in holding[0]
    assert "it is in use" in used[0]
    assert empty == ()
    assert found.has_changes
    assert [note.split('"')[1] for note in found.notes] == ["shop.retry.1000", "shop.producers", "shop.send.email"]
    assert not compute_plan(Topology(), observed, ["billing"]).items


def test_what_waits_for_a_retry_is_counted_wherever_it_waits() -> None:
    observed = BrokerState(
        {}, {"shop.retry.5": ExistingItem(messages=2), "shop.retry.9": None, "orders": ExistingItem(messages=7)}
    )
    assert (
        count_retrying_messages(
            observed, [(LeftoverQueue("shop.retry.7", 3, 0), "wait"), (LeftoverQueue("shop.a", 9, 0), "queue")]
        )
        == 5
    )


def test_dead_letters_go_after_the_queue_that_they_come_from() -> None:
    """By the queue's own arguments, and by name where it has none, as a classic queue without options."""
    failed = {"x-dead-letter-routing-key": "shop.failed"}
    names = ("shop.email", "shop.email.dead", "shop.failed", "shop.sms.dead")
    email, dead, to_failed, alone = (LeftoverQueue(name, 0, 0) for name in names)
    assert without_dead_letter_sources([email, dead, alone], [email, dead, alone]) == [email, alone]
    assert without_dead_letter_sources([dead, to_failed], [LeftoverQueue("shop.email", 0, 0, arguments=failed)]) == [
        dead
    ]
    assert without_dead_letter_sources([dead, alone], []) == [dead, alone]
