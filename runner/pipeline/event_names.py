"""The event of a message, for the check of its schema and for `Message.event`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runner.message import Address

EventOf = Callable[[str, str, str | None], str | None]
"""Takes the original exchange and routing key of a message, and its AMQP property `type`."""


def type_alone(exchange: str, key: str, kind: str | None) -> str | None:
    """Return the event of a message if no event is declared: its `type`."""
    return kind


def event_of(addresses: Mapping[str, Address], exchange: str) -> EventOf:
    """Return the function that finds the event of a message, by the addresses of the declared events.

    `exchange` is the exchange of undeclared events.

    The exchange and the routing key come first: every publisher sets them correctly, while other clients leave `type`
    out, or write a class name there. `type` decides between events with the same address, and for a routing key that is
    not an event's, because `Publish` can replace it. On an exchange of events, any other key is the name of an event
    that another pipeline declares, and that a pattern matches.
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
