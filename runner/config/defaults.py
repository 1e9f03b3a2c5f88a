"""Merges `defaults` into the queues, producers and subscribers of documents, node by node.

Nodes keep their positions, so an error in a default is reported where the default is written. The defaults of a file
apply to the items of that file only. A declared dead-letter queue without options gets no defaults: it must be the same
queue as the one that is made if it is not declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from runner.config import limits
from runner.config.document import Document, MappingNode, Node, ScalarNode, SequenceNode, child_of, text_of
from runner.config.positions import Span
from runner.errors import PipelineInvalid, Problem


def merge_defaults(documents: Sequence[Document]) -> None:
    """Merge `defaults.queue` into each queue, and so on. Raises PipelineInvalid if the result has too many nodes."""
    budget = _Budget()
    dead = _dead_letter_queues(documents)
    queues = frozenset[str]().union(*(_keys(child_of(document.root, "queues")) for document in documents))
    for document in documents:
        defaults = child_of(document.root, "defaults")
        if isinstance(defaults, MappingNode):
            try:
                _merge(document.root, defaults, queues, dead, budget)
            except PipelineInvalid as error:
                raise PipelineInvalid([replace(item, file=str(document.path)) for item in error.problems]) from None


def idle_defaults(documents: Sequence[Document]) -> Iterator[Problem]:
    """Yield a warning for each default of a file that has no such items, where other files have some."""
    for document in documents if len(documents) > 1 else ():
        for kind in _keys(child_of(document.root, "defaults")):
            sections = ("queues", "subscribers") if kind == "queue" else (f"{kind}s",)
            have = [each for each in documents if any(_keys(child_of(each.root, section)) for section in sections)]
            if have and document not in have:
                message = f"the defaults of a file are for its own items, and this file has no {sections[0]}"
                help_ = f"write them in {' and '.join(each.path.name for each in have[:3])}"
                path = ("defaults", kind)
                problem = document.problem("unused-option", path, message, help_, on="key")
                yield replace(problem, severity="warning", file=str(document.path))


def _dead_letter_queues(documents: Sequence[Document]) -> frozenset[str]:
    """Return the names of the dead-letter queues of all queues, subscribers' own ones included."""
    found: set[str] = set()
    root = documents[0]
    name = text_of(child_of(root.root, "name")) or root.path.stem
    for document in documents:
        queues, subscribers = child_of(document.root, "queues"), child_of(document.root, "subscribers")
        options = {queue: child_of(queues, queue) for queue in _keys(queues)}
        options |= {f"{name}.{item}": _below(subscribers, item, "queue") for item in _keys(subscribers)}
        default = _below(document.root, "defaults", "queue", "dead_letter")
        for queue, node in options.items():
            target = child_of(node, "dead_letter") or default
            if not _is_false(target):
                found.add(text_of(target) or f"{queue}.dead")
    return frozenset(found)


def _has_options(node: Node) -> bool:
    """Whether a queue has an option that changes how it is declared on the broker."""
    harmless = {"events", "bind", "schema"}
    return any(
        key not in harmless and not (key == "dead_letter" and _is_false(item))
        for key, (_, item) in (node.nodes.items() if isinstance(node, MappingNode) else ())
    )


def _merge(
    root: MappingNode, defaults: MappingNode, queues: frozenset[str], dead: frozenset[str], budget: _Budget
) -> None:
    options = {kind: _marked(child_of(defaults, kind)) for kind in ("queue", "producer", "subscriber")}
    for kind, option in options.items():
        section = child_of(root, f"{kind}s")
        if option is not None and isinstance(section, MappingNode):
            _merge_section(section, option, dead if kind == "queue" else frozenset(), budget)
    queue, subscribers = options["queue"], child_of(root, "subscribers")
    if queue is not None and isinstance(subscribers, MappingNode):
        _merge_own_queues(subscribers, queue, queues, budget)


def _marked(options: Node | None) -> MappingNode | None:
    """Return the options with their keys marked as defaults."""
    if not isinstance(options, MappingNode):
        return None
    nodes = {key: (replace(span, is_default=True), node) for key, (span, node) in options.nodes.items()}
    return MappingNode(options.span, options.is_block, nodes, options.weight, options.height)


class _Budget:
    """Limits how many nodes the defaults may add to all files together."""

    def __init__(self) -> None:
        self._left = limits.MAX_EXPANDED_NODES

    def take(self, options: MappingNode) -> None:
        self._left -= options.weight
        if self._left < 0:
            message = f"the defaults make more than {limits.MAX_EXPANDED_NODES} keys and values of the file"
            raise PipelineInvalid([options.span.problem("too-large", message, "write fewer defaults", path="defaults")])


def _merge_section(section: MappingNode, options: MappingNode, dead: frozenset[str], budget: _Budget) -> None:
    for name, (span, node) in section.nodes.items():
        if _is_map(node) and (name not in dead or _has_options(node)):
            budget.take(options)
            section.nodes[name] = (span, _merged(node, options))


def _merge_own_queues(subscribers: MappingNode, options: MappingNode, queues: frozenset[str], budget: _Budget) -> None:
    """Merge `defaults.queue` into the own queue of each subscriber of events."""
    for name, (span, node) in subscribers.nodes.items():
        if isinstance(node, MappingNode) and "from" in node.nodes and not queues & _texts(child_of(node, "from")):
            key_span, queue = node.nodes.get("queue", (span, _empty(span)))
            if _is_map(queue):
                budget.take(options)
                nodes = {**node.nodes, "queue": (key_span, _merged(queue, options))}
                subscribers.nodes[name] = (span, MappingNode(node.span, node.is_block, nodes))


def _merged(node: Node, options: MappingNode) -> MappingNode:
    """Return a map, with the options that it does not have. Maps inside it are merged as well, lists are not."""
    if not isinstance(node, MappingNode):
        return MappingNode(node.span, False, dict(options.nodes))
    nodes = dict(node.nodes)
    for key, (span, option) in options.nodes.items():
        if key not in nodes:
            nodes[key] = (span, option)
        elif isinstance(option, MappingNode) and isinstance(nodes[key][1], MappingNode):
            nodes[key] = (nodes[key][0], _merged(nodes[key][1], _marked(option) or option))
    return MappingNode(node.span, node.is_block, nodes)


def _is_map(node: Node) -> bool:
    return isinstance(node, MappingNode) or (isinstance(node, ScalarNode) and node.value is None)


def _empty(span: Span) -> MappingNode:
    return MappingNode(replace(span, length=0), True)


def _below(node: Node | None, *keys: str) -> Node | None:
    for key in keys:
        node = child_of(node, key)
    return node


def _keys(node: Node | None) -> frozenset[str]:
    return frozenset(node.nodes) if isinstance(node, MappingNode) else frozenset()


def _is_false(node: Node | None) -> bool:
    return isinstance(node, ScalarNode) and node.value is False


def _texts(node: Node | None) -> frozenset[str]:
    nodes = node.nodes if isinstance(node, SequenceNode) else [node]
    return frozenset(filter(None, map(text_of, nodes)))
