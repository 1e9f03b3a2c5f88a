"""Compares a topology with the state of a broker: (Topology, Observed) → Plan. Pure.

What could not be inspected is never counted as equal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runner.operations.leftovers import LeftoverKind, classify, describe, leftover_note, pipeline_names_in, removal_hint
from runner.pipeline.topology import PARTITIONS_SUFFIX, Binding, Exchange, Queue, Topology
from runner.transports.broker_state import (
    BrokerState,
    Difference,
    ExistingItem,
    LeftoverQueue,
    LiveBinding,
    absence_text,
    differences,
    options_of,
    shown,
)
from runner.units import pluralize

Action = Literal["create", "match", "recreate", "extra", "foreign", "unfinished", "unchecked"]

_BUILT_IN = ExistingItem()
"""Stands for an exchange that every broker has: it exists, and is part of no topology."""

CHANGE_ACTIONS: tuple[Action, ...] = ("create", "recreate", "extra", "foreign", "unfinished")
"""The actions that count as a difference, for --detailed-exitcode."""


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One line of a plan: what would be done to one thing and why (`text`), and more lines below it (`details`)."""

    action: Action
    kind: Literal["exchange", "queue", "binding"]
    name: str
    text: str
    details: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    messages: int | None = None
    consumers: int | None = None
    live: LiveBinding | None = None
    stray: LeftoverQueue | None = None

    @property
    def partitions(self) -> list[str]:
        """The partitions that there are or would be, if their number is what differs."""
        queue = self.name.removesuffix(PARTITIONS_SUFFIX)
        numbers = [int(text) for each in self.differences for text in (each.spec, each.live) if text.isdecimal()]
        return [f"{queue}.{number}" for number in range(max(numbers, default=0))] if queue != self.name else []

    def as_json(self) -> dict[str, Any]:
        """Return the object that `plan --json` prints for it."""
        return {
            "action": self.action,
            "kind": self.kind,
            "name": self.name,
            "text": self.text,
            "differences": [{"key": each.key, "spec": each.spec, "live": each.live} for each in self.differences],
            "messages": self.messages,
            "consumers": self.consumers,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """The differences between a topology and a broker. `notes` are information, not differences."""

    items: tuple[PlanItem, ...]
    notes: tuple[str, ...] = ()
    product: str = ""
    management: str | None = None
    unchecked: str = ""
    """Why the management API was not used; empty if it was."""

    @property
    def has_changes(self) -> bool:
        """Whether anything differs."""
        return any(item.action in CHANGE_ACTIONS for item in self.items)

    @property
    def is_complete(self) -> bool:
        """Whether everything could be compared. Without the management API, leftovers are unknown."""
        return not self.unchecked and not any(item.action == "unchecked" for item in self.items)

    def of(self, *actions: Action) -> list[PlanItem]:
        """Return the items with one of these actions."""
        return [item for item in self.items if item.action in actions]

    def summary(self) -> str:
        """Return the last line, as in `plan: 2 to create, 1 to recreate, 4 match`."""
        words: dict[Action, str] = {
            "create": "to create",
            "recreate": "to recreate",
            "unfinished": "to finish recreating",
            "extra": "extra",
            "foreign": "missing, to be declared by its owner",
            "match": "match",
            "unchecked": "not checked",
        }
        parts = [f"{number} {said}" for action, said in words.items() if (number := len(self.of(action)))]
        return f"plan: {', '.join(parts) or 'nothing to compare'}"

    def as_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints; keys are only ever added."""
        return {
            "version": 1,
            "product": self.product,
            "management": self.management,
            "changes": self.has_changes,
            "complete": self.is_complete,
            "unchecked": self.unchecked,
            "items": [item.as_json() for item in self.items],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What `apply` did, as sentences, what still differs (`left`), and which requests could not be met (`refused`)."""

    done: tuple[str, ...]
    left: Plan
    refused: tuple[str, ...] = ()


def compute_plan(topology: Topology, observed: BrokerState, pipelines: Collection[str] = ()) -> Plan:
    """Return what would have to change on the broker: exchanges, then queues, bindings, and leftovers.

    `pipelines` are the names of the pipelines that the topology belongs to.
    """
    items = [_exchange(item, observed.exchanges.get(item.name)) for item in topology.exchanges]
    exclusive = [queue.name for queue in topology.queues if queue.exclusive]
    for queue in topology.queues:
        if queue.exclusive:
            continue
        items.append(_queue(queue, observed.queues.get(queue.name)))
        if queue.name in observed.recreating:
            items.append(_unfinished(queue, observed.recreating[queue.name]))
    items += _bindings(topology, observed)
    left = find_strays(observed, pipelines)
    queues = [stray for stray, kind in left if kind == "queue"]
    items += [_leftover(stray, queues) for stray in queues]
    notes = [text for queue in topology.queues for text in _policy(queue, observed.queues.get(queue.name))]
    notes += [f'queue "{name}" is exclusive: each `up` declares its own' for name in exclusive]
    notes += [leftover_note(stray, kind) for stray, kind in left if kind != "queue"]
    return Plan(tuple(items), tuple(notes), observed.product, observed.management, observed.unchecked)


def state_of(existing: Topology, wanted: Topology, depths: Mapping[str, tuple[int, int]] | None = None) -> BrokerState:
    """Return the state of a broker that has an existing topology, to be compared with another one.

    `depths` has the numbers of messages and consumers of its queues, where they are known.
    """
    declared = {each.name: each for each in wanted.exchanges if each.declare}
    exchanges = {}
    for each in existing.exchanges:
        spec = options_of(declared.get(each.name, each))
        exchanges[each.name] = ExistingItem(tuple(differences("exchange", each.name, spec, options_of(each))))
    checked = {each.name for each in wanted.queues if not each.declare}
    queues = {
        each.name: ExistingItem(
            remark="" if each.name in checked else "compared",
            messages=depths[each.name][0] if depths else None,
            consumers=depths[each.name][1] if depths else None,
            arguments={"durable": each.durable, "auto_delete": each.auto_delete, **each.arguments},
        )
        for each in existing.queues
    }
    return BrokerState(exchanges, queues, tuple(map(LiveBinding, existing.bindings)))


def missing_items(found: Plan, topology: Topology) -> tuple[Topology, list[PlanItem]]:
    """Return what to declare, and its items. Exclusive queues are declared by their consumer."""
    new = {(item.kind, item.name) for item in found.of("create")}
    missing = {item.name for item in found.of("foreign")} | {item.name for item in found.of("unfinished")}
    absent = missing | {item.name for item in topology.queues if item.exclusive}
    queues = [item for item in topology.queues if ("queue", item.name) in new and item.name not in absent]
    exchanges = [item for item in topology.exchanges if ("exchange", item.name) in new]
    bindings = [each for each in topology.bindings if each.queue not in absent and each.exchange not in missing]
    if not (exchanges or queues or any(item.kind == "binding" for item in found.of("create", "unchecked"))):
        bindings = []
    items = [item for item in found.of("create") if item.name not in absent]
    return Topology(tuple(exchanges), tuple(queues), tuple(bindings)), items


def find_strays(observed: BrokerState, pipelines: Collection[str]) -> list[tuple[LeftoverQueue, LeftoverKind]]:
    """Return the queues that are, or may be, leftovers of these pipelines, each with its kind."""
    others = pipeline_names_in(observed.all_queues)
    found = ((stray, classify(stray.name, pipelines, others)) for stray in observed.leftovers)
    return [(stray, kind) for stray, kind in found if kind is not None]


def _leftover(stray: LeftoverQueue, left: Iterable[LeftoverQueue]) -> PlanItem:
    details = tuple(filter(None, [removal_hint(stray, left)]))
    counts = (stray.messages, stray.consumers)
    return PlanItem("extra", "queue", stray.name, describe(stray), details, (), *counts, stray=stray)


def _exchange(wanted: Exchange, seen: ExistingItem | None) -> PlanItem:
    if seen is not None:
        cost = "`apply` does not recreate exchanges: that would delete their bindings"
        return _compared("exchange", wanted, seen, cost)
    if not wanted.declare:
        return _foreign("exchange", wanted.name)
    traits = [wanted.type, "durable" if wanted.durable else "transient", *_written(wanted.arguments)]
    return PlanItem("create", "exchange", wanted.name, f'exchange "{wanted.name}": {", ".join(traits)}')


def _queue(wanted: Queue, seen: ExistingItem | None) -> PlanItem:
    if seen is not None:
        return _compared("queue", wanted, _completed(wanted, seen), seen.must_be_recreated)
    if not wanted.declare:
        return _foreign("queue", wanted.name)
    flags = {"exclusive": wanted.exclusive, "auto_delete": wanted.auto_delete}
    traits = [
        str(wanted.arguments.get("x-queue-type", "classic")),
        "durable" if wanted.durable else "transient",
        *(name for name, is_set in flags.items() if is_set),
        *_written({key: value for key, value in wanted.arguments.items() if key != "x-queue-type"}),
    ]
    return PlanItem("create", "queue", wanted.name, f'queue "{wanted.name}": {", ".join(traits)}')


def _compared(kind: Literal["exchange", "queue"], wanted: Exchange | Queue, seen: ExistingItem, cost: str) -> PlanItem:
    """Return the item for something that exists. `cost` is what a recreation means."""
    counts = (seen.messages, seen.consumers)
    if seen.differences:
        text, *lines = (line for each in seen.differences for line in each.lines())
        details = (*lines, *filter(None, [seen.remark]), cost)
        return PlanItem("recreate", kind, wanted.name, text, details, seen.differences, *counts)
    if seen.is_locked:
        details = ("it is deleted when that connection closes: close it",)
        return PlanItem("recreate", kind, wanted.name, seen.remark, details)
    if seen.remark:
        return PlanItem("unchecked", kind, wanted.name, seen.remark, (), (), *counts)
    return PlanItem("match", kind, wanted.name, f'{kind} "{wanted.name}"', (), (), *counts)


def _foreign(kind: Literal["exchange", "queue"], name: str) -> PlanItem:
    why = "the pipeline says `declare: false`: its owner has to declare it"
    return PlanItem("foreign", kind, name, absence_text(kind, name), (why,))


def _unfinished(queue: Queue, messages: int) -> PlanItem:
    text = f'queue "{queue.name}": its recreation was interrupted, {pluralize(messages, "message")} moved aside'
    return PlanItem("unfinished", "queue", queue.name, text, messages=messages)


def _completed(wanted: Queue, seen: ExistingItem) -> ExistingItem:
    """Add what the management API knows to what AMQP could not tell."""
    if not seen.remark or seen.arguments is None:
        return seen
    spec = {"durable": wanted.durable, "auto_delete": wanted.auto_delete, **wanted.arguments}
    told = {each.key for each in seen.differences}
    more = [each for each in differences("queue", wanted.name, spec, seen.arguments) if each.key not in told]
    remark = seen.remark if seen.is_locked else ""
    return ExistingItem((*seen.differences, *more), remark, seen.is_locked, seen.messages, seen.consumers)


def _bindings(topology: Topology, observed: BrokerState) -> Iterator[PlanItem]:
    declared = {queue.name for queue in topology.queues if queue.declare and not queue.exclusive}
    exclusive = {queue.name for queue in topology.queues if queue.exclusive}
    ours = [binding for binding in topology.bindings if binding.queue not in exclusive]
    if observed.bindings is None:
        yield from _bindings_unseen(ours, observed)
        return
    live = {each.binding.identity: each for each in observed.bindings}
    wanted = {binding.identity: binding for binding in ours}
    for key, binding in wanted.items():
        action: Action = "match" if key in live else "create"
        yield PlanItem(action, "binding", binding.queue, f"binding {format_binding(binding)}")
    for key, each in live.items():
        if key not in wanted and each.binding.queue in declared:
            text = f"binding {format_binding(each.binding)} is not in the pipeline"
            yield PlanItem("extra", "binding", each.binding.queue, text, live=each)


def _bindings_unseen(wanted: Iterable[Binding], observed: BrokerState) -> Iterator[PlanItem]:
    """Yield bindings without the management API: one is known to be missing only if its queue or exchange is."""
    unseen: list[Binding] = []
    for binding in wanted:
        lacks_queue = observed.queues.get(binding.queue) is None
        lacks_exchange = observed.exchanges.get(binding.exchange, _BUILT_IN) is None
        if not lacks_queue and not lacks_exchange:
            unseen.append(binding)
        else:
            yield PlanItem("create", "binding", binding.queue, f"binding {format_binding(binding)}")
    reason = observed.unchecked or "the management API was not used"
    for binding in unseen:
        text = f"binding {format_binding(binding)}: not checked, {reason}"
        yield PlanItem("unchecked", "binding", binding.queue, text)


def _policy(queue: Queue, seen: ExistingItem | None) -> Iterator[str]:
    if seen is not None and seen.policy and seen.policy_sets:
        sets = ", ".join(f"{key} {shown(value)}" for key, value in sorted(seen.policy_sets.items()))
        yield f'queue "{queue.name}": the policy "{seen.policy}" also sets {sets}'


def format_binding(binding: Binding) -> str:
    """Return a binding as text, as in `events --order.paid--> shop.mail`."""
    how = ", ".join([*filter(None, [binding.key]), *_written(binding.arguments)])
    return f"{binding.exchange} --{how}--> {binding.queue}" if how else f"{binding.exchange} --> {binding.queue}"


def _written(arguments: Mapping[str, Any]) -> list[str]:
    return [f"{key} {shown(value)}" for key, value in arguments.items()]
