"""Comparing a topology with what a broker has: what is a change, what is none, and what is not known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.errors import TopologyMismatch
from runner.operations.plan import Plan, compute_plan, state_of
from runner.pipeline.topology import Binding, Exchange, Queue, Topology
from runner.transports.broker_state import BrokerState, Difference, ExistingItem, LiveBinding
from runner.transports.memory.topology_check import check_topology

ORDERS = Queue("orders", arguments={"x-queue-type": "quorum", "x-max-length": 10})
SHOP = Exchange("shop")
PAID = Binding("shop", "orders", "order.paid")
WHOLE = Topology((SHOP,), (ORDERS,), (PAID,))
SILENT = "the management API does not answer at http://rabbit:15672: connection refused"


def observed(**changes: Any) -> BrokerState:
    """Return what a broker has that has everything of WHOLE, with changes."""
    everything: dict[str, Any] = {
        "exchanges": {"shop": ExistingItem()},
        "queues": {"orders": ExistingItem(messages=0, consumers=0)},
        "bindings": (LiveBinding(PAID, "order.paid"),),
    }
    return BrokerState(**{**everything, **changes})


def actions(found: Plan) -> dict[str, str]:
    return {item.text: item.action for item in found.items}


def differing(key: str = "x-max-length", spec: str = "10", live: str = "5") -> Difference:
    return Difference("queue", "orders", key, spec, live)


def test_what_is_there_as_wanted_is_no_change() -> None:
    """A broker with everything gives a complete plan without changes."""
    found = compute_plan(WHOLE, observed())
    assert {item.action for item in found.items} == {"match"}
    assert not found.has_changes
    assert found.is_complete
    assert found.summary() == "plan: 3 match"


def test_what_is_missing_is_created_in_the_order_of_the_topology() -> None:
    """Exchanges first, then queues, then bindings, each with what it would be."""
    found = compute_plan(WHOLE, observed(exchanges={"shop": None}, queues={"orders": None}, bindings=()))
    assert [item.text for item in found.of("create")] == [
        'exchange "shop": topic, durable',
        'queue "orders": quorum, durable, x-max-length 10',
        "binding shop --order.paid--> orders",
    ]


def test_a_plan_and_a_declaration_name_the_same_differences() -> None:
    """Each argument alone, and in the same words."""
    before = Topology((Exchange("shop", arguments={"alternate-exchange": "rest"}),), (ORDERS,))
    after = Topology((Exchange("shop", "direct"),), (Queue("orders", False, arguments={"x-overflow": ""}),))
    found = compute_plan(after, state_of(before, after)).of("recreate")
    with pytest.raises(TopologyMismatch) as refused:
        check_topology(after, {"shop": before.exchanges[0]}, {"orders": ORDERS})
    lines = [str(each) for item in found for each in item.differences]
    assert lines == str(refused.value).splitlines()
    assert lines == [
        'exchange "shop": alternate-exchange is rest on the broker, the pipeline says none',
        'exchange "shop": type is topic on the broker, the pipeline says direct',
        'queue "orders": durable is true on the broker, the pipeline says false',
        'queue "orders": x-max-length is 10 on the broker, the pipeline says none',
        'queue "orders": x-overflow is none on the broker, the pipeline says ""',
        'queue "orders": x-queue-type is quorum on the broker, the pipeline says classic',
    ]


def test_a_difference_says_both_values_what_it_costs_and_what_to_write() -> None:
    """One item for each queue, however many keys differ."""
    seen = ExistingItem((differing(), differing("x-overflow", "reject-publish", "drop-head")), messages=12, consumers=1)
    (item,) = compute_plan(Topology(queues=(ORDERS,)), observed(queues={"orders": seen})).of("recreate")
    assert item.text == 'queue "orders": x-max-length is 5 on the broker, the pipeline says 10'
    assert item.details == (
        "  write `max_length: 5` to agree with the broker",
        'queue "orders": x-overflow is drop-head on the broker, the pipeline says reject-publish',
        "  write `overflow: drop-head` to agree with the broker",
        "it must be recreated; it holds 12 messages and has 1 consumer",
    )


def test_the_lines_of_a_plan_are_those_that_up_refuses_to_start_with() -> None:
    """One wording for one fact."""
    seen = ExistingItem((differing(), differing("x-overflow", "reject-publish", "drop-head")), messages=1, consumers=0)
    (item,) = compute_plan(Topology(queues=(ORDERS,)), observed(queues={"orders": seen})).of("recreate")
    assert [line.strip() for line in (item.text, *item.details)] == [line.strip() for line in seen.lines()]


def test_a_binding_that_the_pipeline_has_no_more_is_extra() -> None:
    """Only of queues that the pipeline declares: others' queues have bindings that are none of our business."""
    theirs = Queue("theirs", declare=False)
    old = LiveBinding(Binding("shop", "orders", "order.old"), "order.old")
    foreign = LiveBinding(Binding("shop", "theirs", "x"), "x")
    topology = Topology((SHOP,), (ORDERS, theirs), (PAID,))
    seen = {"orders": ExistingItem(messages=0, consumers=0), "theirs": ExistingItem(messages=0, consumers=0)}
    found = compute_plan(topology, observed(queues=seen, bindings=(LiveBinding(PAID), old, foreign)))
    assert [(item.text, item.live) for item in found.of("extra")] == [
        ("binding shop --order.old--> orders is not in the pipeline", old)
    ]
    assert found.has_changes


def test_bindings_are_told_apart_by_their_arguments() -> None:
    """Bindings of a headers exchange have no key."""
    wanted = Binding("shop", "orders", "", {"kind": "pdf", "x-match": "all"})
    live = LiveBinding(Binding("shop", "orders", "", {"x-match": "all", "kind": "png"}))
    found = compute_plan(Topology((SHOP,), (ORDERS,), (wanted,)), observed(bindings=(live,)))
    assert actions(found)["binding shop --kind pdf, x-match all--> orders"] == "create"
    assert actions(found)["binding shop --x-match all, kind png--> orders is not in the pipeline"] == "extra"
    same = LiveBinding(Binding("shop", "orders", "", {"x-match": "all", "kind": "pdf"}))
    assert not compute_plan(Topology((SHOP,), (ORDERS,), (wanted,)), observed(bindings=(same,))).has_changes


def test_bindings_that_cannot_be_read_are_never_in_sync() -> None:
    """Without the management API, bindings are unchecked, with the reason; the plan has no change and is incomplete."""
    found = compute_plan(WHOLE, observed(bindings=None, unchecked=SILENT))
    assert actions(found)[f"binding shop --order.paid--> orders: not checked, {SILENT}"] == "unchecked"
    assert not found.is_complete
    assert not found.has_changes
    assert found.summary() == "plan: 2 match, 1 not checked"


@pytest.mark.parametrize("missing", [{"queues": {"orders": None}}, {"exchanges": {"shop": None}}])
def test_a_binding_of_something_missing_is_missing_too(missing: dict[str, Any]) -> None:
    """That much is known without the management API."""
    found = compute_plan(WHOLE, observed(bindings=None, unchecked=SILENT, **missing))
    assert actions(found)["binding shop --order.paid--> orders"] == "create"
    assert not found.is_complete  # what is left over is not known without it
    assert not found.of("unchecked")


def test_foreign_topology_is_only_looked_for() -> None:
    """With `declare: false`, a missing queue is a change that the runner does not make."""
    topology = Topology((Exchange("bus", declare=False),), (Queue("theirs", declare=False),))
    found = compute_plan(topology, observed(exchanges={"bus": None}, queues={"theirs": None}, bindings=()))
    assert [item.text for item in found.of("foreign")] == [
        'exchange "bus" does not exist',
        'queue "theirs" does not exist',
    ]
    assert found.has_changes
    assert not found.of("create")


def test_a_recreation_that_was_begun_is_a_change_though_the_queue_is_as_wanted() -> None:
    """Its messages are somewhere else."""
    found = compute_plan(WHOLE, observed(recreating={"orders": 7}))
    (item,) = found.of("unfinished")
    assert item.text == 'queue "orders": its recreation was interrupted, 7 messages moved aside'
    assert found.has_changes


def test_what_was_not_compared_is_neither_equal_nor_different() -> None:
    """A user without the right to configure gets no false peace."""
    remark = 'queue "orders" exists and was not compared: no right'
    found = compute_plan(
        Topology(queues=(ORDERS,)), observed(queues={"orders": ExistingItem(remark=remark)}, bindings=())
    )
    assert actions(found) == {remark: "unchecked"}


def test_what_the_broker_hides_is_not_checked() -> None:
    """From 4.3 on RabbitMQ says nothing about what the user has no right to."""
    remark = 'whether queue "orders" exists is not known: no right'
    found = compute_plan(
        Topology(queues=(ORDERS,)),
        observed(queues={"orders": ExistingItem(remark=remark, is_hidden=True)}, bindings=()),
    )
    assert actions(found) == {remark: "unchecked"}
    assert not found.is_complete


def test_where_amqp_did_not_tell_the_arguments_of_the_management_api_do() -> None:
    """All of them, and a type that is not given is classic."""
    live = {"durable": True, "auto_delete": False, "x-max-length": 5}
    seen = ExistingItem(remark="not compared", messages=0, consumers=0, arguments=live)
    (item,) = compute_plan(Topology(queues=(ORDERS,)), observed(queues={"orders": seen})).of("recreate")
    assert [(each.key, each.spec, each.live) for each in item.differences] == [
        ("x-max-length", "10", "5"),
        ("x-queue-type", "quorum", "classic"),
    ]
    classic = Queue("orders")
    equal = ExistingItem(
        remark="not compared", arguments={"durable": True, "auto_delete": False, "x-queue-type": "classic"}
    )
    assert not compute_plan(Topology(queues=(classic,)), observed(queues={"orders": equal}, bindings=())).has_changes


def test_an_exclusive_queue_is_no_change_and_is_mentioned() -> None:
    """Only the process that uses an exclusive queue can create it."""
    topology = Topology((SHOP,), (Queue("mine", exclusive=True),), (Binding("shop", "mine", "x"),))
    found = compute_plan(topology, observed(queues={"mine": None}, bindings=()))
    assert not found.has_changes
    assert found.notes == ('queue "mine" is exclusive: each `up` declares its own',)


def test_policies_are_told_and_are_no_changes() -> None:
    """They act beside what was declared."""
    seen = ExistingItem(
        messages=0, consumers=0, policy="limits", policy_sets={"max-length": 3, "overflow": "drop-head"}
    )
    found = compute_plan(WHOLE, observed(queues={"orders": seen}))
    assert found.notes == ('queue "orders": the policy "limits" also sets max-length 3, overflow drop-head',)
    assert not found.has_changes


def test_the_json_document_is_stable() -> None:
    """Programs read it."""
    seen = ExistingItem((differing(),), messages=2, consumers=0)
    found = compute_plan(
        WHOLE, observed(queues={"orders": seen}, bindings=None, unchecked=SILENT, product="RabbitMQ 3.10.8")
    )
    document = json.loads(json.dumps(found.as_json()))
    assert {key: value for key, value in document.items() if key != "items"} == {
        "version": 1,
        "product": "RabbitMQ 3.10.8",
        "management": None,
        "changes": True,
        "complete": False,
        "unchecked": SILENT,
        "notes": [],
    }
    assert document["items"][1] == {
        "action": "recreate",
        "kind": "queue",
        "name": "orders",
        "text": 'queue "orders": x-max-length is 5 on the broker, the pipeline says 10',
        "differences": [{"key": "x-max-length", "spec": "10", "live": "5"}],
        "messages": 2,
        "consumers": 0,
    }


def test_a_queue_that_order_by_makes_ordered_is_not_advised_to_lose_a_key_that_it_lacks() -> None:
    """`order_by` declares it with a single active consumer."""
    advice = differing("x-single-active-consumer", "true", "none").advice
    assert advice == "remove `single_active_consumer`, or `order_by` of its subscriber, to agree with the broker"
