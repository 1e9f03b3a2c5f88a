"""What a pipeline has left on the broker: queues of subscribers that it does not have any more. Pure.

Only names tell whose a queue is. Those that begin with a pipeline's name and a dot are its own, as `wiring` makes them.
But the queues of a pipeline `shop.eu` begin with `shop.` as well: what may be another pipeline's is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from runner.transports.broker_state import BrokerState, LeftoverQueue, pluralize

LeftoverKind = Literal["queue", "wait", "leadership", "doubtful"]
"""A subscriber's queue or its dead letters, a wait queue, a leadership's queue, or perhaps another pipeline's."""

_TRACES = re.compile(r"(?P<pipeline>.+)\.(producers|retry\.\d+)")
_WAIT = re.compile(r"retry\.\d+")
_WAIT_QUEUE = re.compile(r"\.retry\.\d+$")
_ENDS = (".recreating", ".dead")


def pipeline_names_in(names: Iterable[str]) -> set[str]:
    """Return the names of pipelines that have left traces among the names of queues."""
    return {match["pipeline"] for name in names if (match := _TRACES.fullmatch(name))}


def classify(name: str, pipelines: Collection[str], others: Collection[str]) -> LeftoverKind | None:
    """Return what a queue is to these pipelines; None where it is another's: the longest name that fits owns it."""
    owner = max((each for each in {*pipelines, *others} if name.startswith(f"{each}.")), key=len, default=None)
    if owner is None or owner not in pipelines:
        return None
    rest = name.removeprefix(f"{owner}.")
    if _WAIT.fullmatch(rest):
        return "wait"
    if rest == "producers":
        return "leadership"
    for end in _ENDS:
        rest = rest.removesuffix(end)
    return "doubtful" if "." in rest else "queue"


def dead_letter_queue_of(stray: LeftoverQueue) -> str:
    """Return the name of the queue that takes a queue's dead letters."""
    return str(stray.arguments.get("x-dead-letter-routing-key") or f"{stray.name}.dead")


def without_dead_letter_sources(found: Sequence[LeftoverQueue], there: Iterable[LeftoverQueue]) -> list[LeftoverQueue]:
    """Return the queues that take no dead letters of those that are there."""
    needed = {dead_letter_queue_of(stray) for stray in there}
    return [stray for stray in found if stray.name not in needed]


def count_retrying_messages(observed: BrokerState, left: Iterable[tuple[LeftoverQueue, LeftoverKind]]) -> int:
    """Return how many messages wait for a retry. AMQP does not tell into which queue they will come back."""
    known = sum(seen.messages or 0 for name, seen in observed.queues.items() if seen and _WAIT_QUEUE.search(name))
    return known + sum(stray.messages for stray, kind in left if kind == "wait")


def describe(stray: LeftoverQueue) -> str:
    """Return a sentence on what is left, as in `queue shop.email is not in the pipeline: 1 message, …`."""
    parts = [pluralize(stray.messages, "message")]
    if stray.unacked:
        parts.append(f"{stray.unacked} unacknowledged")
    parts.append(pluralize(stray.consumers, "consumer"))
    exchanges = dict.fromkeys(each.binding.exchange for each in stray.bindings)
    parts.append(f"bound to {', '.join(exchanges)}" if exchanges else "bound to no exchange")
    return f'queue "{stray.name}" is not in the pipeline: {", ".join(parts)}'


def removal_hint(stray: LeftoverQueue, left: Iterable[LeftoverQueue] = ()) -> str:
    """Say what keeps a queue from being removed, and what to do; empty where nothing does. `left` are all leftovers."""
    if stray.consumers:
        return "it is in use: stop its consumers first, or give `plan` and `apply` the file that has it as well"
    if stray.messages or stray.unacked:
        what = f"`runner dead` with the file that had it, or `--prune-queue {stray.name}`, which deletes them"
        return f"it holds messages: let a consumer take them, {what}"
    source = next((each.name for each in left if dead_letter_queue_of(each) == stray.name and removal_hint(each)), None)
    return f'it takes the dead letters of "{source}", and goes after it' if source else ""


def note(stray: LeftoverQueue, kind: LeftoverKind) -> str:
    """Say why something that is not in the pipeline is no difference."""
    if kind == "wait":
        return f"{describe(stray)}; `RetryLater` makes such queues as it needs them, `apply --prune` deletes empty ones"
    if kind == "leadership":
        return f"{describe(stray)}; it has the state of producers: `--prune-queue {stray.name}` deletes it"
    owner = stray.name.rpartition(".")[0]
    return f'{describe(stray)}; it may be of a pipeline "{owner}": `--prune-queue {stray.name}` deletes it'
