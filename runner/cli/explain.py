"""`runner explain`: what an error code means and how to fix it."""

from __future__ import annotations

import click

from runner.cli.output import errors_as_exit_codes
from runner.cli.verb import Verb, complete_codes
from runner.errors import RunnerError


class UnknownCode(RunnerError):
    """The argument is not an error code."""

    exit_code = 2


@click.command("explain", cls=Verb, short_help="Explain an error code.")
@click.argument("code", required=False, shell_complete=complete_codes)
def command(code: str | None) -> None:
    """Explain the error CODE, with a wrong and a right example. Without CODE, list all codes."""
    from runner.config.messages import closest
    from runner.operations.explanations import explanations

    known = explanations()
    code = code if code is None else code.strip("[] :").removeprefix("error[").lower()
    if code is None:
        for entry in known.values():
            click.echo(f"{entry.code:<22} {entry.text.splitlines()[0]}")
        return
    with errors_as_exit_codes():
        if code not in known:
            guess = closest(code, list(known))
            hint = f'did you mean "{guess}"?' if guess else "`runner explain` lists all codes"
            if "." in code:
                hint = f"docs/reference/logs.md describes the events of the log; {hint}"
            raise UnknownCode(f'no error has the code "{code}"', hint)
    entry = known[code]
    click.echo(f"{entry.code}\n\n{entry.text}")
    for title, example in (("Wrong", entry.wrong), ("Right", entry.right)):
        if example:
            indented = "".join(f"    {line}" for line in example.splitlines(keepends=True))
            click.echo(f"\n{title}:\n\n{indented}", nl=False)
