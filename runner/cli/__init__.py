"""The command line: one module for each verb. Only click is imported before the verb is known."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

_VERBS = {
    "init": "Start a project: a pipeline, its handlers, a test.",
    "up": "Validate pipelines, connect, and run them until stopped.",
    "dev": "Run pipelines on the in-process broker, and reload them when they change.",
    "validate": "Check pipelines and report every problem at once.",
    "config": "Print the effective pipeline, with every default.",
    "graph": "Draw producers, queues and subscribers, as text or as a picture.",
    "plan": "Compare pipelines with the broker; change nothing.",
    "apply": "Declare what is missing on the broker; recreate named queues.",
    "publish": "Publish a message to a queue or an event of a pipeline.",
    "tap": "Print copies of messages as they are published.",
    "status": "Show each queue's messages, consumers and dead letters.",
    "page": "Show queues and dead letters in a browser; run nothing.",
    "dead": "List, show, replay or drop dead letters.",
    "export": "Write definitions, permissions, a compose file or Kubernetes objects.",
    "explain": "Explain an error code, with an example.",
    "schema": "Print the JSON Schema of pipeline files, for editors.",
}


class _Verbs(click.Group):
    """A group that imports the module of a verb when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"runner.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a verb. click's usage errors quote arguments, so passwords in URLs are masked."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            from runner.redaction import mask_passwords

            error.message = mask_passwords(error.message)  # type: ignore[misc]  # click builds the message before we see it
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from runner.release import version

    click.echo(f"runner, version {version()}")
    context.exit()


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "RUNNER"})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """Run message pipelines described in YAML.

    Start with `runner init DIR`; then `runner validate PATH` and `runner up PATH`.
    """


def main() -> None:
    """Run the command line. Ends the process with one of the documented exit codes."""
    from runner.log_output import open_standard_streams

    open_standard_streams()
    try:
        cli.main(prog_name="runner", standalone_mode=True)
    except Exception as failure:  # anything that arrives here is a bug in the runner or a full disk
        from runner.cli.output import echo_bug, echo_output_lost

        is_lost = isinstance(failure, OSError) and failure.errno in _UNWRITABLE
        sys.exit(echo_output_lost(failure) if is_lost else echo_bug())  # type: ignore[arg-type]  # narrowed
    finally:
        _end_streams()


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Errors of a stream that cannot be written to. click itself handles a reader that has gone."""


def _end_streams() -> None:
    """Point unwritable streams at /dev/null, or the interpreter would print an error when it exits."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
