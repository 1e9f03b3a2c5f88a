"""`runner export messages` and `runner import messages`: move what waits from one broker to another."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions, echo_broker_state
from runner.cli.output import EXIT_INTERRUPTED, echo_err
from runner.cli.signals import stop_on_signals
from runner.cli.verb import Verb, complete_names
from runner.units import pluralize

if TYPE_CHECKING:
    from runner.operations.message_transfer import MessageExport, MessageImport
    from runner.system import System


@click.command("messages", cls=Verb, short_help="Take what waits out of the broker, into a file.")
@options.pipelines(options.broker, options.wait, is_one=True)
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=complete_names("queues"))
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Add the messages to this file, a line each. If it is new, only its owner can read it.",
)
def export_messages(chosen: PipelineOptions, queues: tuple[str, ...], output: Path) -> None:
    """Take the messages of the pipelines at PATH out of their broker, into a file for `runner import messages`.

    These are the messages in work queues and dead-letter queues, and those that wait for a retry or are delayed. With
    QUEUE, only the messages in these queues. Each is removed from the broker when its line is on the disk. If this is
    interrupted, run the same command again: it adds what is left. At most 50 messages are in the file twice then.

    Nothing is taken while a process takes messages from one of the queues.

    Exit codes: 0 exported, 1 a queue is in use, messages are left, or the file cannot be written, 2 wrong usage, 69
    broker unreachable, 78 invalid pipeline, 130 interrupted.
    """
    done, left = asyncio.run(_export(_load(chosen), queues, output))
    for name, count in done.exported.items():
        click.echo(f"{name}  {count}")
    click.echo(f"exported {pluralize(done.exported.total(), 'message')} to {output}")
    _exit_if_stopped(done)
    if left:
        text = f"{pluralize(left, 'message')} left: a program publishes, or they cannot be decoded"
        echo_err(f"{text}; stop it, and run the same command again")
        sys.exit(1)


async def _export(system: System, queues: tuple[str, ...], output: Path) -> tuple[MessageExport, int]:
    from runner.operations import message_transfer
    from runner.operations.memory_access import make_access

    chosen = message_transfer.places(system.pipelines, queues)
    access = make_access(system.broker, name=f"{system.name} export", on_transport_event=echo_broker_state)
    try:
        await access.open()
        with message_transfer.open_locked(output) as file:
            message_transfer.prepare(file, output)
            export = message_transfer.MessageExport(access, chosen, file, stop_on_signals())
            return export, await export.run()
    finally:
        await access.close()


@click.group("import", short_help="Publish messages that `runner export messages` took from a broker.")
def command() -> None:
    """Publish messages that `runner export messages` took from a broker."""


@command.command("messages", cls=Verb, short_help="Publish the messages of a file to the queues that they come from.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@options.pipelines(options.broker, options.wait, is_one=True)
def import_messages(chosen: PipelineOptions, file: Path) -> None:
    """Publish the messages of FILE to the same queues of the pipelines at PATH, on the broker that they have now.

    Each message goes to its queue alone, in order, with its id, its properties and its attempts; retries and delayed
    messages wait for what is left of their delay. All lines are checked before the first one is published, and what is
    missing on the broker is declared.

    FILE.done says how much is confirmed. If this is interrupted, run the same command again: it goes on there, and at
    most 50 messages come twice, with the same ids.

    Exit codes: 0 all are confirmed, 1 a line is wrong, or a message is not confirmed, 2 wrong usage, 69 broker
    unreachable or different, 78 invalid pipeline, 130 interrupted.
    """
    from runner.operations.message_transfer import read_file

    next(read_file(file, 0, 0), None)  # it may be the pipeline
    done = asyncio.run(_import(_load(chosen), file))
    before = f"; {done.before} were imported before, see {file}.done" if done.before else ""
    click.echo(f"imported {pluralize(done.count - done.before, 'message')} from {file}{before}")
    _exit_if_stopped(done)


async def _import(system: System, file: Path) -> MessageImport:
    from runner.app import make_transport
    from runner.operations.message_transfer import MessageImport

    transport = make_transport(system, echo_broker_state)
    try:
        await transport.connect()
        work = MessageImport(transport, system.pipelines, file, stop_on_signals())
        await work.run(system.topology)
    finally:
        await transport.close()
    return work


def _load(chosen: PipelineOptions) -> System:
    """Load pipelines on a broker that outlives its processes. Raises PipelineInvalid and NoLiveBroker."""
    from runner.operations.targets import NoLiveBroker

    system = chosen.load()
    if system.broker.is_memory:
        text = "the in-process broker forgets its messages with its process: there is nothing to move"
        raise NoLiveBroker(text, "pass --broker URL, or write `broker: file:PATH` in the pipeline")
    return system


def _exit_if_stopped(done: MessageExport | MessageImport) -> None:
    if done.stop.is_set():
        echo_err("interrupted: run the same command again to go on")
        sys.exit(EXIT_INTERRUPTED)
