"""Engine: finds the queues that a message is routed to, and caches them by address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runner.errors import PublishFailed
from runner.message import Address
from runner.pipeline.topic_patterns import matches, matches_headers
from runner.pipeline.topology import BUILT_IN_EXCHANGES, Binding, Exchange
from runner.transports.amqp_limits import check_routing_key
from runner.transports.memory.queue import MemoryQueue

MAX_CACHED_ROUTES = 10_000
"""Routing keys may contain ids, so that each is used once. A full cache is emptied."""

PREDEFINED = tuple(Exchange(name, kind) for name, kind in BUILT_IN_EXCHANGES.items())


class Router:
    """Exchanges, queues and bindings. Every change empties the cache of routes."""

    def __init__(self) -> None:
        self.exchanges: dict[str, Exchange] = {exchange.name: exchange for exchange in PREDEFINED}
        self.queues: dict[str, MemoryQueue] = {}
        self._bindings: dict[str, dict[tuple[str, str, str, str], Binding]] = {}
        self._cache: dict[Address, tuple[MemoryQueue, ...]] = {}

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """All bindings."""
        return tuple(binding for bindings in self._bindings.values() for binding in bindings.values())

    def route(self, address: Address, headers: Mapping[str, Any]) -> tuple[MemoryQueue, ...]:
        """Return the queues that a message is routed to, each once.

        Raises PublishFailed: `unavailable` for an unknown exchange, `invalid` for a key that is too long.
        """
        queues = self._cache.get(address)
        if queues is not None:
            return queues
        check_routing_key(address.key)
        queues, is_lasting = self._find(address.exchange, address.key, headers)
        if is_lasting:
            if len(self._cache) >= MAX_CACHED_ROUTES:
                self._cache.clear()
            self._cache[address] = queues
        return queues

    def add(self, exchanges: Iterable[Exchange], queues: Iterable[MemoryQueue], bindings: Iterable[Binding]) -> None:
        """Add new items. A binding that exists already is the same binding."""
        self._cache.clear()
        self.exchanges.update((exchange.name, exchange) for exchange in exchanges)
        self.queues.update((queue.name, queue) for queue in queues)
        for binding in bindings:
            self._bindings.setdefault(binding.exchange, {})[binding.identity] = binding

    def unbind(self, bindings: Iterable[Binding]) -> None:
        """Remove bindings."""
        self._cache.clear()
        for binding in bindings:
            self._bindings.get(binding.exchange, {}).pop(binding.identity, None)

    def remove(self, queue: MemoryQueue) -> None:
        """Remove a queue and its bindings."""
        self._cache.clear()
        self.queues.pop(queue.name, None)
        for bindings in self._bindings.values():
            for identity in [each.identity for each in bindings.values() if each.queue == queue.name]:
                del bindings[identity]

    def _find(self, name: str, key: str, headers: Mapping[str, Any]) -> tuple[tuple[MemoryQueue, ...], bool]:
        """Return the queues, and whether every message with this address goes to the same ones."""
        if name == "":
            return tuple(queue for queue in (self.queues.get(key),) if queue is not None), True
        is_lasting, seen = True, set[str]()
        while name not in seen:
            exchange = self.exchanges.get(name)
            if exchange is None:
                if seen:  # an alternate exchange that does not exist: the message has nowhere to go
                    break
                raise PublishFailed(f'exchange "{name}" does not exist', reason="unavailable")
            seen.add(name)
            is_lasting = is_lasting and exchange.type != "headers"
            found = dict.fromkeys(
                binding.queue
                for binding in self._bindings.get(name, {}).values()
                if _takes(exchange, binding, key, headers)
            )
            if found:
                return tuple(self.queues[queue] for queue in found), is_lasting
            name = str(exchange.arguments.get("alternate-exchange", name))
        return (), is_lasting


def _takes(exchange: Exchange, binding: Binding, key: str, headers: Mapping[str, Any]) -> bool:
    match exchange.type:
        case "fanout":
            return True
        case "direct":
            return binding.key == key
        case "topic":
            return matches(binding.key, key)
        case "headers":
            return matches_headers(binding.arguments, headers)
