"""Leftovers: queues on the broker of subscribers that were removed from a pipeline. Pure.

Only its name says which pipeline a queue belongs to: the one whose name and a dot it begins with, as `topology_builder`
names them. But the queues of a pipeline `shop.eu` begin with `shop.` too: a queue that may be another pipeline's stays.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from runner.transports.broker_state import BrokerState, LeftoverQueue
from runner.units import pluralize

LeftoverKind = Literal["queue", "wait", "delay", "leadership", "pauses", "doubtful"]
"""A subscriber's queue or dead-letter queue, a wait queue, one that holds delayed messages, that of leader election or
of pauses, perhaps another's.
"""

_TRACES = re.compile(r"(?P<pipeline>.+)\.(producers|pauses|retry\.\d+|delay\.\d+)")
_WAIT = re.compile(r"retry\.\d+")
_DELAY = re.compile(r"delay\.(\d+|to\..+)")
_WAIT_QUEUE = re.compile(r"\.retry\.\d+$")
_ENDS = (".recreating", ".dead")


def pipeline_names_in(names: Iterable[str]) -> set[str]:
    """Return the names of the pipelines that these queue names give evidence of."""
    return {match["pipeline"] for name in names if (match := _TRACES.fullmatch(name))}


def classify(name: str, pipelines: Collection[str], others: Collection[str]) -> LeftoverKind | None:
    """Return the kind of a queue; None if it belongs to another pipeline: the one with the longest matching name."""
    owner = max((each for each in {*pipelines, *others} if name.startswith(f"{each}.")), key=len, default=None)
    if owner is None or owner not in pipelines:
        return None
    rest = name.removeprefix(f"{owner}.")
    if _WAIT.fullmatch(rest):
        return "wait"
    if _DELAY.fullmatch(rest):
        return "delay"
    if rest in ("producers", "pauses"):
        return "leadership" if rest == "producers" else "pauses"
    for end in _ENDS:
        rest = rest.removesuffix(end)
    return "doubtful" if "." in rest else "queue"


def dead_letter_queue_of(stray: LeftoverQueue) -> str:
    """Return the name of a queue's dead-letter queue."""
    return str(stray.arguments.get("x-dead-letter-routing-key") or f"{stray.name}.dead")


def without_dead_letter_sources(found: Sequence[LeftoverQueue], there: Iterable[LeftoverQueue]) -> list[LeftoverQueue]:
    """Return the queues of `found` that are not the dead-letter queue of any queue of `there`."""
    needed = {dead_letter_queue_of(stray) for stray in there}
    return [stray for stray in found if stray.name not in needed]


def count_retrying_messages(observed: BrokerState, left: Iterable[tuple[LeftoverQueue, LeftoverKind]]) -> int:
    """Return how many messages wait for a retry. AMQP does not say to which queue they will return."""
    known = sum(seen.messages or 0 for name, seen in observed.queues.items() if seen and _WAIT_QUEUE.search(name))
    return known + sum(stray.messages for stray, kind in left if kind == "wait")


def describe(stray: LeftoverQueue) -> str:
    """Return a sentence about a leftover, as in `queue "shop.email" is not in the pipeline: 1 message, …`."""
    parts = [pluralize(stray.messages, "message")]
    if stray.unacked:
        parts.append(f"{stray.unacked} unacknowledged")
    parts.append(pluralize(stray.consumers, "consumer"))
    exchanges = dict.fromkeys(each.binding.exchange for each in stray.bindings)
    parts.append(f"bound to {', '.join(exchanges)}" if exchanges else "bound to no exchange")
    return f'queue "{stray.name}" is not in the pipeline: {", ".join(parts)}'


def removal_hint(stray: LeftoverQueue, left: Iterable[LeftoverQueue] = ()) -> str:
    """Return what prevents the removal of a queue and what to do; empty if nothing does. `left` are all leftovers."""
    if stray.consumers:
        return "it is in use: stop its consumers first, or also pass the file that declares it"
    if stray.messages or stray.unacked:
        what = f"use `runner dead` with the file that declared it, or `--prune-queue {stray.name}`, which deletes them"
        return f"it holds messages: let a consumer handle them, {what}"
    source = next((each.name for each in left if dead_letter_queue_of(each) == stray.name and removal_hint(each)), None)
    return f'it is the dead-letter queue of "{source}" and can be removed after it' if source else ""


def leftover_note(stray: LeftoverQueue, kind: LeftoverKind) -> str:
    """Say why a queue that is not in the pipeline is not a difference."""
    removal = f"`--prune-queue {stray.name}` deletes it"
    notes = {
        "wait": "`RetryLater` declares such queues on demand, `apply --prune` deletes empty ones",
        "delay": "it holds delayed messages; `apply --prune` deletes them all when all are empty",
        "leadership": f"it holds the state of producers; {removal}",
        "pauses": f"it holds the pauses of subscribers; {removal}",
    }
    doubt = f'it may belong to a pipeline "{stray.name.rpartition(".")[0]}"; {removal}'
    return f"{describe(stray)}; {notes.get(kind, doubt)}"
