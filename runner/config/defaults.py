"""Input: the `defaults` of a Document merged under its queues, producers and subscribers, node by node.

Nodes keep their places, so a wrong default is reported where it is written.
"""

from __future__ import annotations

from runner.config import limits
from runner.config.document import Document, Entries, Items, Node, Scalar
from runner.config.places import Place
from runner.errors import PipelineInvalid, Problem


def merge_defaults(document: Document) -> None:
    """Merge `defaults.queue` under each queue, and so on. Raises PipelineInvalid where that makes too much of it."""
    defaults = _child(document.root, "defaults")
    if not isinstance(defaults, Entries):
        return
    budget = _Budget()
    for kind in ("queue", "producer", "subscriber"):
        options, section = _child(defaults, kind), _child(document.root, f"{kind}s")
        if isinstance(options, Entries) and isinstance(section, Entries):
            _merge_section(section, options, budget)
    queue, subscribers = _child(defaults, "queue"), _child(document.root, "subscribers")
    if isinstance(queue, Entries) and isinstance(subscribers, Entries):
        _merge_own_queues(subscribers, queue, _keys(_child(document.root, "queues")), budget)


class _Budget:
    """How many nodes the defaults may still add."""

    def __init__(self) -> None:
        self._left = limits.MAX_EXPANDED

    def take(self, options: Entries) -> None:
        self._left -= options.weight
        if self._left < 0:
            raise PipelineInvalid([_too_large(options.place)])


def _too_large(place: Place) -> Problem:
    return Problem(
        code="too-large",
        message=f"the defaults make more than {limits.MAX_EXPANDED} keys and values of the file",
        path="defaults",
        help="write fewer defaults",
        line=place.line,
        column=place.column,
        length=max(1, place.length),
    )


def _merge_section(section: Entries, options: Entries, budget: _Budget) -> None:
    for name, (place, node) in section.nodes.items():
        if _is_map(node):
            budget.take(options)
            section.nodes[name] = (place, _merged(node, options))


def _merge_own_queues(subscribers: Entries, options: Entries, queues: frozenset[str], budget: _Budget) -> None:
    """Merge `defaults.queue` under the own queue of each subscriber that has one: one that reads no queue."""
    for name, (place, node) in subscribers.nodes.items():
        if isinstance(node, Entries) and "from" in node.nodes and not queues & _words(_child(node, "from")):
            key_place, queue = node.nodes.get("queue", (place, _empty(place)))
            if _is_map(queue):
                budget.take(options)
                nodes = {**node.nodes, "queue": (key_place, _merged(queue, options))}
                subscribers.nodes[name] = (place, Entries(node.place, node.is_block, nodes))


def _merged(node: Node, options: Entries) -> Entries:
    """Return a map with the options it does not have itself; maps in it are merged too, lists are not."""
    if not isinstance(node, Entries):
        return Entries(node.place, False, dict(options.nodes))
    nodes = dict(node.nodes)
    for key, (place, option) in options.nodes.items():
        if key not in nodes:
            nodes[key] = (place, option)
        elif isinstance(option, Entries) and isinstance(nodes[key][1], Entries):
            nodes[key] = (nodes[key][0], _merged(nodes[key][1], option))
    return Entries(node.place, node.is_block, nodes)


def _is_map(node: Node) -> bool:
    return isinstance(node, Entries) or (isinstance(node, Scalar) and node.value is None)


def _empty(place: Place) -> Entries:
    return Entries(Place(place.line, place.column, 0), True)


def _child(node: Node, key: str) -> Node | None:
    return node.nodes[key][1] if isinstance(node, Entries) and key in node.nodes else None


def _keys(node: Node | None) -> frozenset[str]:
    return frozenset(node.nodes) if isinstance(node, Entries) else frozenset()


def _words(node: Node | None) -> frozenset[str]:
    nodes = node.nodes if isinstance(node, Items) else [node]
    return frozenset(item.value for item in nodes if isinstance(item, Scalar) and isinstance(item.value, str))
