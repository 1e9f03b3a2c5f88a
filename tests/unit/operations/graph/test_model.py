"""The graph of pipelines: every publish, binding, delivery and dead letter is an edge."""

from __future__ import annotations

from runner.operations.graph.model import build_graph
from tests.unit.operations.graph.graphs import CYCLE, MAIL, SHOP, arrows, graph, specs


def test_messages_go_from_producers_to_places_to_subscribers() -> None:
    """Each `to`, each `from`, each `events` and `bind` is an arrow."""
    found = graph(SHOP)
    assert arrows(found, "publish") == {
        ("web", "order.placed"),
        ("partner", "orders"),
        ("partner", "order.placed"),
        ("charge", "payment.received"),
        ("repair", "orders"),
    }
    assert arrows(found, "bind") == {("order.placed", "orders"), ("erp", "imports")}
    assert arrows(found, "deliver") == {("orders", "charge"), ("imports", "restock"), ("failed", "repair")}


def test_failures_go_to_the_dead_letter_queue() -> None:
    """A declared one is a queue like others; one that is not has a node of its own; dropped ones go nowhere."""
    found = graph(SHOP)
    assert arrows(found, "dead-letter") == {("charge", "failed"), ("restock", "imports.dead")}
    assert found.nodes["dead-letter:imports.dead"].kind == "dead-letter"
    assert [(edge.source, edge.label) for edge in found.edges if edge.kind == "retry"] == [
        ("subscriber:shop.charge", "8 attempts from 2s")
    ]


def test_several_pipelines_meet_in_what_they_share() -> None:
    """In queues of one name and in events of one address: a pattern hears other pipelines' events, too."""
    found = graph(SHOP, MAIL)
    assert found.nodes["queue:orders"].pipelines == ("shop", "mail")
    assert found.nodes["event:order.placed"].pipelines == ("shop", "mail")
    assert ("order.placed", "notify") in arrows(found, "deliver")
    # the same name on another exchange is another event
    assert found.nodes["event:payments/payment.received"].pipelines == ("shop",)
    heard = {edge.source for edge in found.edges if edge.target == "subscriber:mail.archive" and edge.kind == "deliver"}
    assert heard == {"event:order.placed", "event:payment.received"}


def test_a_pattern_that_no_event_matches_is_shown_as_it_stands() -> None:
    """What another program publishes may match it."""
    found = graph(MAIL)
    assert found.nodes["event:refund.*"].notes == ("not declared here",)
    assert ("refund.*", "early") in arrows(found)


def test_two_pipelines_of_one_name_are_told_apart() -> None:
    """By their files."""
    first, second = specs(CYCLE, CYCLE)
    names = [pipeline.name for pipeline in build_graph([first, second]).pipelines]
    assert names == ["circle (pipeline.yaml)"] * 2
