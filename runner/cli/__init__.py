"""Entry: the command line. One module for each verb; only click is imported before a verb is known."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

_VERBS = {
    "init": "Start a project: a pipeline, a handler, a test.",
    "up": "Validate pipelines, connect, declare, and run them until stopped.",
    "validate": "Check pipelines and report every problem at once.",
    "config": "Print a pipeline as it is understood, with every default.",
    "graph": "Show who talks to whom, as text or as a picture.",
    "plan": "Compare pipelines with the broker, and change nothing.",
    "apply": "Make what is missing on the broker, and recreate what is named.",
    "publish": "Publish a message to a queue or an event of a pipeline.",
    "tap": "Watch messages go by, without taking any.",
    "status": "Show what waits in each queue, and who takes it.",
    "page": "Show queues and dead letters in a browser, and run nothing.",
    "dead": "Look at dead letters, send them back, or drop them.",
    "export": "Write definitions, permissions, a compose file or Kubernetes objects.",
    "explain": "Say what an error code means and how to mend it.",
    "schema": "Print the JSON Schema of the language, for editors.",
}


class _Verbs(click.Group):
    """Finds a verb in the module of its name, and imports it only then."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"runner.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a verb; what click says of a wrong argument quotes it, and it may be a URL with a password."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            from runner.redaction import mask_passwords

            error.message = mask_passwords(error.message)  # type: ignore[misc]  # what it quotes is known only here
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
    """Run message pipelines that are described in YAML.

    Start with `runner init DIR`; then `runner validate PATH` and `runner up PATH`.
    """


def main() -> None:
    """Run the command line; ends the process with one of the documented exit codes."""
    from runner.log_output import open_standard_streams

    open_standard_streams()
    try:
        cli.main(prog_name="runner", standalone_mode=True)
    except Exception as failure:  # the last stop: anything that comes this far is a bug in the runner, or a full disk
        from runner.cli.output import echo_bug, echo_output_lost

        is_lost = isinstance(failure, OSError) and failure.errno in _UNWRITABLE
        sys.exit(echo_output_lost(failure) if is_lost else echo_bug())  # type: ignore[arg-type]  # narrowed
    finally:
        _end_streams()


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""How writing to a stream fails, other than by a reader that is gone, which click knows."""


def _end_streams() -> None:
    """Lead streams that cannot be written to /dev/null: the interpreter would else complain about them at its end."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
