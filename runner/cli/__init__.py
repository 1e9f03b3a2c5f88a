"""The command line: one module for each verb. Only click is imported before the verb is known."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
import threading

import click

_GROUPS = {
    "Write": "init validate test config graph diff explain schema",
    "Run": "up dev publish call page",
    "Look at a broker, and change it": "plan apply status tap dead pause resume import",
    "Deploy": "export",
}
_VERBS = " ".join(_GROUPS.values()).split()


class _Verbs(click.Group):
    """A group that imports the module of a verb when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _VERBS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = "messages" if cmd_name == "import" else cmd_name  # a keyword is no name of a module
        command: click.Command = importlib.import_module(f"runner.cli.{module}").command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, with `help VERB` and `version` as other programs have them."""
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        elif args[:1] == ["version"]:
            args = ["--version", *args[1:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a verb. click's usage errors quote arguments, so passwords in URLs are masked."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            from runner.redaction import mask_passwords

            error.message = mask_passwords(error.message)  # type: ignore[misc]  # click builds the message before we see it
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from runner.tables import read_table

        texts = {row[0]: row[1] for row in read_table("runner.cli", "commands.txt", 2)}
        for title, verbs in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(verb, texts[verb]) for verb in verbs.split()])
        with formatter.section("Examples"):
            formatter.write("  runner init shop\n  runner validate shop\n  runner up shop\n  runner help publish\n")


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

    _postpone_collections()
    open_standard_streams()
    try:
        code = _run()
    except Exception as failure:  # anything that arrives here is a bug in the runner or a full disk
        from runner.cli.output import echo_bug, echo_output_lost

        is_lost = isinstance(failure, OSError) and failure.errno in _UNWRITABLE
        code = echo_output_lost(failure) if is_lost else echo_bug()  # type: ignore[arg-type]  # narrowed
    finally:
        _end_streams()
    if any(not each.daemon and each is not threading.main_thread() for each in threading.enumerate()):
        from runner.cli.output import exit_process

        exit_process(code)  # a module of handlers has started a thread, which may never end
    sys.exit(code)


def _postpone_collections() -> None:
    """Let the first garbage collection come later: what a start makes stays, and 80 collections would find nothing."""
    usual = gc.get_threshold()

    def restore(*_: object) -> None:
        gc.callbacks.remove(restore)
        gc.set_threshold(*usual)

    gc.callbacks.append(restore)
    gc.set_threshold(200_000, *usual[1:])  # objects; the usual number is 700 or 2,000


def _run() -> int:
    """Run the command line; return the exit code. Wrong usage is explained in our own words."""
    from runner.cli.output import EXIT_INTERRUPTED, echo_err, echo_error

    try:
        code = cli.main(prog_name="runner", standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except click.Abort as abort:
        is_interrupt = isinstance(abort.__cause__ or abort.__context__, KeyboardInterrupt)
        echo_err("interrupted" if is_interrupt else "stopped: nothing was done")
        return EXIT_INTERRUPTED if is_interrupt else 1
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # from click 8.2 on
            error.show()
            return error.exit_code
        from runner.cli.usage import explain_usage

        echo_error(*explain_usage(error, sys.argv[1:]))
        return error.exit_code
    except click.ClickException as error:
        echo_error(error.format_message())
        return error.exit_code
    return code if isinstance(code, int) else 0


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Errors of a stream that cannot be written to. click itself handles a reader that has gone."""


def _end_streams() -> None:
    """Point unwritable streams at /dev/null, or the interpreter would print an error when it exits."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
