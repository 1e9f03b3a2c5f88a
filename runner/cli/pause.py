"""`runner pause` and `runner resume`: stop and start a subscriber in all processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions, echo_broker_state
from runner.cli.output import echo_err
from runner.cli.verb import Verb, complete_names
from runner.clock import utc_now

if TYPE_CHECKING:
    from runner.operations.queue_access import QueueAccess
    from runner.pipeline.model import Pipeline, Subscriber

Work = Callable[["QueueAccess", "Pipeline", "Subscriber"], Awaitable[None]]


@click.command("pause", cls=Verb, short_help="Stop a subscriber in all processes; its messages wait.")
@options.pipelines(options.broker, options.wait, is_one=True)
@click.argument("name", shell_complete=complete_names("subscribers"))
@click.option("--reason", default="", metavar="TEXT", help="Why, for the log, `runner status` and the page.")
def command(chosen: PipelineOptions, name: str, reason: str) -> None:
    """Pause the subscriber NAME of the pipeline at PATH, in all processes, until `runner resume`.

    Handlers that run end; then the subscriber takes no more messages, and holds none. They wait in its queue. The pause
    outlives restarts of the processes and of the broker, and can be set before anything runs. Readiness probes stay
    green.

    Exit codes: 0 paused, 2 no such subscriber or in-process broker, 69 broker unreachable, 78 invalid pipeline.
    """

    async def work(session: QueueAccess, pipeline: Pipeline, subscriber: Subscriber) -> None:
        from runner.operations.pausing import pause

        made = await pause(session, pipeline.name, subscriber.name, reason, utc_now())
        found = [counts for name in subscriber.queues if (counts := await session.depth(name)) is not None]
        waiting = f"; {sum(counts.messages for counts in found)} messages wait" if found else ""
        echo_err(f"{subscriber.name} is {made.text}{waiting}")

    _run(chosen, name, work)


@click.command("resume", cls=Verb, short_help="Start a subscriber that was paused.")
@options.pipelines(options.broker, options.wait, is_one=True)
@click.argument("name", shell_complete=complete_names("subscribers"))
def resume(chosen: PipelineOptions, name: str) -> None:
    """Resume the subscriber NAME of the pipeline at PATH, in all processes.

    Exit codes: 0 it takes messages, 2 no such subscriber or in-process broker, 69 broker unreachable, 78 invalid
    pipeline.
    """

    async def work(session: QueueAccess, pipeline: Pipeline, subscriber: Subscriber) -> None:
        from runner.operations.pausing import resume

        echo_err(await resume(session, pipeline.name, subscriber.name))

    _run(chosen, name, work)


def _run(chosen: PipelineOptions, name: str, work: Work) -> None:
    """Find the subscriber, connect, and await `work`."""
    from runner.operations.memory_access import open_access
    from runner.operations.pausing import find_subscriber, require_shared_pauses

    system = chosen.load()
    require_shared_pauses(system.broker)
    pipeline, subscriber = find_subscriber(system.pipelines, name)

    async def connect_and_work() -> None:
        name = f"{system.name} pause"
        async with open_access(system.broker, name=name, on_transport_event=echo_broker_state) as session:
            await work(session, pipeline, subscriber)

    asyncio.run(connect_and_work())
