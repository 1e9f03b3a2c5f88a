"""Pauses and resumes subscribers for all processes, for `runner pause` and the page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from runner.operations.queue_access import QueueAccess
from runner.operations.targets import NoLiveBroker, ambiguous_target, unknown_target
from runner.pipeline.model import BrokerSettings, Pipeline, Subscriber
from runner.redaction import escape_controls, mask_passwords
from runner.transports.pauses import MAX_REASON, Pause


def require_shared_pauses(settings: BrokerSettings) -> None:
    """Raise NoLiveBroker for the in-process broker."""
    if settings.is_memory:
        text = "the pipeline runs on the in-process broker: only its own process can pause it, for as long as it runs"
        raise NoLiveBroker(text, "use the page of `runner up --http … --allow-actions`, or give --broker URL")


def find_subscriber(pipelines: Sequence[Pipeline], name: str) -> tuple[Pipeline, Subscriber]:
    """Return the one subscriber of this name, with its pipeline. Raises UnknownTarget."""
    found = [(pipeline, each) for pipeline in pipelines for each in pipeline.subscribers if each.name == name]
    if len(found) > 1:
        raise ambiguous_target(name, (pipeline.path for pipeline, _ in found))
    if not found:
        every = {each.name: each for pipeline in pipelines for each in pipeline.subscribers}
        readers = [each.name for each in every.values() if name in (each.queue, *each.queues, *each.event_patterns)]
        meant = f'write {" or ".join(readers)}, which reads "{name}"' if readers else ""
        raise unknown_target(name, "subscriber", every, meant)
    return found[0]


async def pause(access: QueueAccess, pipeline: str, subscriber: str, reason: str, now: datetime) -> Pause:
    """Pause a subscriber, and return the pause. One that is paused keeps its `since`. Raises BrokerUnavailable."""
    before = (await access.pauses(pipeline) or {}).get(subscriber)
    since = before.since if before is not None else now.replace(microsecond=0)
    made = Pause(since, escape_controls(mask_passwords(reason))[:MAX_REASON])
    if made != before:
        await access.set_pause(pipeline, subscriber, made)
    return made


async def resume(access: QueueAccess, pipeline: str, subscriber: str) -> str:
    """End the pauses of a subscriber, and return what has ended in words. Raises BrokerUnavailable.

    The end is written in any case: processes may have paused it by themselves (`trip`), which the broker does not know,
    and a node that has just started may not show an operator's pause yet.
    """
    before = (await access.pauses(pipeline) or {}).get(subscriber)
    await access.set_pause(pipeline, subscriber, None)
    if before is not None:
        return f"{subscriber} was {before.text}"
    return f"{subscriber} was paused by no operator; a process that has paused it by itself resumes it"
