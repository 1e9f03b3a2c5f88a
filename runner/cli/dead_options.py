"""What the verbs of `runner dead` have in common: which dead letters are meant, and a session to work on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import options
from runner.cli.loader import echo_broker_state
from runner.cli.loader import load_system as read_pipelines

if TYPE_CHECKING:
    from runner.app import System
    from runner.operations.dead_letter_ops import DeadLetterOps, Summary
    from runner.operations.dead_letters import SelectedQueue


@dataclass(frozen=True, kw_only=True)
class DeadOptions:
    """What the command line asks for: which pipeline and queue, and which of its dead letters."""

    path: Path
    queue: str | None
    ids: tuple[str, ...] = ()
    error: str = ""
    older_than_s: float | None = None
    limit: int | None = None
    broker: str | None = None
    environ: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0

    @property
    def selects_all(self) -> bool:
        """Whether all dead letters are meant."""
        return not self.ids and not self.error and self.older_than_s is None


_FIELDS = tuple(field.name for field in fields(DeadOptions))


def with_dead_options(limit: int | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add what says which dead letters are meant; the function gets it as its one `wish`. `limit` is the default."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            dead_options = DeadOptions(**{name: given.pop(name) for name in _FIELDS})
            function(dead_options, **given)

        run.__doc__ = function.__doc__
        for option in reversed(_options(limit)):
            run = option(run)
        return run

    return add


def _options(limit: int | None) -> list[Callable[[Callable[..., None]], Callable[..., None]]]:
    default = f" Default: {limit}." if limit else ""
    older = "Only those that failed so long ago: 30m, 1h, 2d."
    return [
        click.argument("path", type=click.Path(path_type=Path)),
        click.argument("queue", required=False),
        click.option("--id", "ids", multiple=True, metavar="ID", help="Only this one; repeatable."),
        click.option("--error", default="", metavar="TEXT", help="Only those with this in their error or reason."),
        click.option("--older-than", "older_than_s", metavar="DURATION", callback=_duration, help=older),
        click.option("--limit", type=click.IntRange(min=1), default=limit, help=f"At most so many.{default}"),
        options.broker,
        options.wait,
        options.env_file,
    ]


def _duration(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    from runner.units import parse_duration

    try:
        return parse_duration(value)
    except ValueError:
        raise click.BadParameter("write a duration, as in 30m, 1h or 2d") from None


def load_selection(dead_options: DeadOptions) -> tuple[System, list[SelectedQueue]]:
    """Read the pipeline and find out which dead-letter queues are meant."""
    from runner.operations.dead_letters import select_dead_letter_queues
    from runner.operations.targets import require_live_broker

    logging.disable()  # what goes wrong comes as an error; the AMQP client's own lines add nothing
    system = read_pipelines([dead_options.path], dead_options.environ, dead_options.broker, wait_s=dead_options.wait_s)
    require_live_broker(system.broker)
    return system, select_dead_letter_queues(system.pipelines, dead_options.queue)


def run_on_dead_letters(
    dead_options: DeadOptions,
    work: Callable[[DeadLetterOps, list[SelectedQueue]], Awaitable[Summary]],
    on_step: Callable[[Summary], None] = lambda _: None,
) -> Summary:
    return asyncio.run(connect_and_run(*load_selection(dead_options), dead_options, work, on_step))


async def connect_and_run(
    system: System,
    choices: list[SelectedQueue],
    dead_options: DeadOptions,
    work: Callable[[DeadLetterOps, list[SelectedQueue]], Awaitable[Summary]],
    on_step: Callable[[Summary], None] = lambda _: None,
) -> Summary:
    """Connect, do some work on dead letters, disconnect."""
    from runner.cli.signals import stop_on_signals
    from runner.operations.dead_letter_ops import DeadLetterOps
    from runner.operations.dead_letters import DeadLetterFilter
    from runner.operations.rabbitmq.queue_browser import BrowseSession

    browser = BrowseSession(system.broker, name=f"{system.name} dead", on_transport_event=echo_broker_state)
    filters = DeadLetterFilter(frozenset(dead_options.ids), dead_options.error, dead_options.older_than_s)
    try:
        await browser.open()
        stop = stop_on_signals()
        return await work(DeadLetterOps(browser, filters, dead_options.limit, utc_now, stop, on_step), choices)
    finally:
        await browser.close()


def utc_now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)
