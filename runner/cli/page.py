"""`runner page`: a web page for pipelines that run elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions
from runner.cli.output import echo_err
from runner.cli.verb import Verb

if TYPE_CHECKING:
    from runner.page.access import Access
    from runner.system import System


@click.command("page", cls=Verb, short_help="Show queues and dead letters in a browser.")
@options.pipelines(options.broker, options.management)
@click.option(
    "--http",
    default="127.0.0.1:9090",
    show_default=True,
    metavar="HOST:PORT",
    callback=options.http_address,
    help="Address to listen on. Port 0 takes a free port.",
)
@options.allow_actions
def command(chosen: PipelineOptions, http: tuple[str, int], allow_actions: bool) -> None:
    """Serve a web page with the queues and dead letters of pipelines on RabbitMQ, until Ctrl-C.

    The command runs no subscribers and no producers. PATH is a pipeline, or a folder: every *.yaml below it with a
    `version:` key. `runner up` serves the same page for the pipelines that it runs, with the rates and durations of
    their handlers. Dead letters need a token: set RUNNER_TOKEN, or open the printed address, which has a new token.

    Exit codes: 0 stopped, 1 the address is in use, 2 the in-process broker, 78 invalid pipeline.
    """
    from runner import log
    from runner.operations.targets import require_live_broker
    from runner.page.access import ENV_VARIABLE, make_access

    log.configure(level="error", stream=sys.stderr)  # "Try here" logs the tracebacks of handlers that fail
    system = chosen.load(is_quiet=False)
    require_live_broker(system.broker)
    access = make_access(chosen.environ.get(ENV_VARIABLE), may_act=allow_actions, makes_token=True)
    asyncio.run(_serve(system, http, access))


async def _serve(system: System, http: tuple[str, int], access: Access) -> None:
    from runner.cli.signals import stop_on_signals
    from runner.operations.graph.model import build_graph
    from runner.page.broker_view import connect
    from runner.page.page import Page, PageSource
    from runner.release import version_fields
    from runner.runtime.http_server import HttpServer

    async def nothing() -> Sequence[str]:
        return ()

    source = PageSource(
        system.pipelines,
        graph=partial(build_graph, system.specs),
        connect=partial(connect, system.pipelines, system.name),
        state=lambda: "watching",
        unready_reasons=nothing,
        release=system.release,
    )
    page = Page(source, access)
    server = HttpServer(http, (), version_fields(system.release))
    stop = stop_on_signals()
    try:
        await server.start(nothing, None, page.routes)
        echo_err(f"page       {access.shown(server.url)}")
        await stop.wait()
    finally:
        await page.close()
        await server.close()
