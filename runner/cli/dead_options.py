"""What the verbs of `runner dead` share: the options that select dead letters, and a connection to work on them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions, echo_broker_state
from runner.cli.verb import complete_names
from runner.clock import utc_now
from runner.errors import RunnerError

if TYPE_CHECKING:
    from runner.operations.dead_letter_ops import DeadLetterOps, Summary
    from runner.operations.dead_letters import DeadLetterFilter, SelectedQueue
    from runner.system import System


@dataclass(frozen=True, kw_only=True)
class DeadOptions:
    """The selection on the command line: a pipeline, a queue, and filters for its dead letters."""

    pipelines: PipelineOptions
    queue: str | None = None
    ids: tuple[str, ...] = ()
    error: str = ""
    older_than_s: float | None = None
    event: str = ""
    headers: tuple[tuple[str, str | None], ...] = ()
    body: tuple[tuple[str, str], ...] = ()
    limit: int | None = None

    @property
    def selects_all(self) -> bool:
        """Whether there is no filter."""
        return self.filters().selects_all

    def filters(self) -> DeadLetterFilter:
        """Return the filters."""
        from runner.operations.dead_letters import DeadLetterFilter

        return DeadLetterFilter(
            ids=frozenset(self.ids),
            error=self.error,
            older_than_s=self.older_than_s,
            event=self.event,
            headers=self.headers,
            body=self.body,
        )


_FIELDS = tuple(field.name for field in fields(DeadOptions) if field.name != "pipelines")


def with_dead_options(limit: int | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options that select dead letters; the function gets them as one DeadOptions. `limit` is the default."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        def run(chosen: PipelineOptions, **given: Any) -> None:
            function(DeadOptions(pipelines=chosen, **{name: given.pop(name) for name in _FIELDS}), **given)

        run.__doc__ = function.__doc__
        for option in reversed(_options(limit)):
            run = option(run)
        return run

    return add


def _options(limit: int | None) -> list[Callable[[Callable[..., None]], Callable[..., None]]]:
    default = f" Default: {limit}." if limit else ""
    older = "Only messages that first failed at least this long ago: 30m, 1h, 2d."
    return [
        options.pipelines(options.broker, options.wait, is_one=True),
        click.argument("queue", required=False, shell_complete=complete_names("queues", "subscribers")),
        click.option(
            "--id",
            "ids",
            multiple=True,
            metavar="ID",
            help="Only the message with this id, or the only one whose id begins so; repeatable.",
        ),
        click.option(
            "--error", default="", metavar="TEXT", help="Only messages with this text in their error or reason."
        ),
        click.option("--older-than", "older_than_s", metavar="DURATION", callback=options.duration, help=older),
        click.option("--event", default="", metavar="EVENT", help="Only messages of this event or pattern of events."),
        click.option(
            *("--header", "headers"),
            multiple=True,
            metavar="NAME[=VALUE]",
            callback=_headers,
            help="Only messages with this header; repeatable.",
        ),
        click.option(
            "--body",
            multiple=True,
            metavar="PATH=VALUE",
            callback=_body,
            help="Only messages whose JSON body has this value at a dotted path: customer.id=7; repeatable.",
        ),
        click.option(
            "--limit", type=click.IntRange(min=1), default=limit, help=f"Maximum number of messages.{default}"
        ),
    ]


def _headers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str | None], ...]:
    parts = (value.partition("=") for value in values)
    return tuple((name, value if sign else None) for name, sign, value in parts)


def _body(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    parts = [value.partition("=") for value in values]
    if not all(path and sign for path, sign, _ in parts):
        wrong = next(value for value, (path, sign, _) in zip(values, parts, strict=True) if not path or not sign)
        meant = re.sub(r"\s*[:=]+\s*|$", "=", wrong, count=1)
        raise options.BadValue(f'"{wrong}" is not PATH=VALUE', by=[meant if meant[-1] != "=" else f"{meant}VALUE"])
    return tuple((path, value) for path, _, value in parts)


def load_selection(dead_options: DeadOptions) -> tuple[System, list[SelectedQueue]]:
    """Load the pipeline, and select its dead-letter queues. Raises NoLiveBroker and UnknownTarget."""
    from runner.operations.dead_letters import select_dead_letter_queues
    from runner.operations.targets import require_live_broker

    system = dead_options.pipelines.load()
    require_live_broker(system.broker)
    return system, select_dead_letter_queues(system.pipelines, dead_options.queue)


def run_on_dead_letters(
    dead_options: DeadOptions,
    work: Callable[[DeadLetterOps, list[SelectedQueue]], Awaitable[Summary]],
    on_step: Callable[[Summary], None] = lambda _: None,
) -> Summary:
    """Load the selection, connect, await `work` on the selected queues, and disconnect."""
    return asyncio.run(connect_and_run(*load_selection(dead_options), dead_options, work, on_step))


class AmbiguousId(RunnerError):
    """Several dead letters have an id that begins as it is given."""

    exit_code = 2


async def with_whole_ids(ops: DeadLetterOps, selected: list[SelectedQueue]) -> DeadLetterOps:
    """Return the operations with whole ids for the beginnings of them. Reads all dead letters if there is one."""
    if not any(map(_BEGINNING.fullmatch, ops.filters.ids)):
        return ops
    ids: set[str] = set()
    every = replace(ops, filters=replace(ops.filters, ids=frozenset()), limit=None, on_step=lambda _: None)
    await every.find(selected, lambda letter: ids.add(letter.id or ""))
    return replace(ops, filters=replace(ops.filters, ids=frozenset(whole_id(given, ids) for given in ops.filters.ids)))


_BEGINNING = re.compile("[0-9a-f]{4,31}")
"""The beginning of an id that the runner made. Other ids are given in full: `order-1` is not `order-12`."""


def whole_id(given: str, ids: Collection[str]) -> str:
    """Return the id that is meant by its beginning; an unknown one as it is given. Raises AmbiguousId."""
    if given in ids or not _BEGINNING.fullmatch(given):
        return given
    known = sorted(each for each in ids if each.startswith(given))
    if len(known) > 1:
        message = f'the ids of {len(known)} dead letters begin with "{given}"'
        raise AmbiguousId(message, f"write more of one: {', '.join(known[:3])}")
    return known[0] if known else given


async def connect_and_run(
    system: System,
    selected: list[SelectedQueue],
    dead_options: DeadOptions,
    work: Callable[[DeadLetterOps, list[SelectedQueue]], Awaitable[Summary]],
    on_step: Callable[[Summary], None] = lambda _: None,
    *,
    is_traced: bool = False,
) -> Summary:
    """Connect, await `work`, and disconnect. With `is_traced`, the work makes spans if the pipeline asks for them."""
    from runner.app import make_trace_export
    from runner.cli.signals import stop_on_signals
    from runner.operations.dead_letter_ops import DeadLetterOps
    from runner.operations.memory_access import open_access

    filters, name = dead_options.filters(), f"{system.name} dead"
    traces = make_trace_export(system, echo_broker_state) if is_traced else None
    tracer = traces.tracer if traces else None
    try:
        async with open_access(system.broker, name=name, on_transport_event=echo_broker_state) as browser:
            stop = stop_on_signals()
            ops = DeadLetterOps(browser, filters, dead_options.limit, utc_now, stop, on_step, tracer)
            return await work(await with_whole_ids(ops, selected), selected)
    finally:
        if traces is not None:
            await traces.close()
