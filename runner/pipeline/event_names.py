"""Tells which event a message is: one answer, for the schema that it is checked against and for `Message.event`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runner.message import Address

EventOf = Callable[[str, str, str | None], str | None]
"""Gets the exchange and the routing key that a message was first published with, and its AMQP property `type`."""


def type_alone(exchange: str, key: str, kind: str | None) -> str | None:
    """Return the event of a message where no event is declared: what its `type` says."""
    return kind


def event_of(addresses: Mapping[str, Address], exchange: str) -> EventOf:
    """Return the function that tells the event of a message, given the addresses of the declared events.

    `exchange` is where events are published to that are not declared here.

    The exchange and the routing key decide: every publisher needs them right, and `type` is ours alone; other clients
    leave it out, or write a class name there. `type` decides between events that share an address, and for a routing
    key that is no event's (`Publish` may have replaced it). On an exchange of events any other key is the name of an
    event that is declared elsewhere, and heard by a pattern.
    """
    names: dict[Address, list[str]] = {}
    for name, address in addresses.items():
        names.setdefault(address, []).append(name)
    exchanges = {exchange, *(address.exchange for address in addresses.values())}

    def find(exchange: str, key: str, kind: str | None) -> str | None:
        found = names.get(Address(exchange, key))
        if found is not None:
            return kind if kind in found else found[0]
        if kind in addresses or exchange not in exchanges:
            return kind
        return key

    return find
