"""Generates docs/reference/commands.md from the `--help` of every verb."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from runner.cli import cli
from runner.cli.verb import examples

_HEAD = """\
# Commands

<!-- Written by `python -m tools.reference.commands` from the help texts in runner/cli. -->

Every option can also be set by an environment variable, `RUNNER_<COMMAND>_<OPTION>`; `--broker` and `--management` also
by `RUNNER_BROKER` and `RUNNER_MANAGEMENT`. `runner COMMAND --help` prints the same texts, with examples, as does
`runner help COMMAND`. Wrong usage is answered with the command line that is meant.

Shells complete commands, options, paths, the names in a pipeline and the codes of `runner explain`:

```sh
eval "$(_RUNNER_COMPLETE=bash_source runner)"       # in ~/.bashrc
eval "$(_RUNNER_COMPLETE=zsh_source runner)"        # in ~/.zshrc
_RUNNER_COMPLETE=fish_source runner | source        # in ~/.config/fish/config.fish
```

Exit codes that all commands share: `0` success, `2` wrong usage, `69` the broker cannot be reached, refuses the
connection or differs from the pipeline, `70` a bug in the runner, `78` an invalid pipeline.
"""


def command_reference() -> str:
    """Return the text of the document."""
    return _HEAD + "".join(_sections(cli, click.Context(cli, info_name="runner")))


def _sections(group: click.Group, context: click.Context) -> Iterator[str]:
    """Yield the section of each command, those of its subcommands after it."""
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None, name
        inner = click.Context(found, info_name=name, parent=context)
        yield _section(found, inner)
        if isinstance(found, click.Group):
            yield from _sections(found, inner)


def _section(command: click.Command, context: click.Context) -> str:
    level = "##" if context.parent is not None and context.parent.parent is None else "###"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f"\n{level} {context.command_path}\n", f"```text\n{usage}\n```\n"]
    lines.append(inspect.cleandoc(command.help or "").replace("\b\n", ""))
    if found := examples(context.command_path):
        lines.append("\n```sh\n" + "\n".join(found) + "\n```")
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    if options:
        lines += ["\n| option | meaning |", "|---|---|", *map(_row, options)]
    return "\n".join(lines) + "\n"


def _row(option: click.Option) -> str:
    """Return the table row of an option. Built from its parts: click's own texts differ between versions."""
    value = option.metavar
    if value is None and isinstance(option.type, click.Choice):
        value = "|".join(option.type.choices)
    elif value is None and not option.is_flag:
        value = {"path": "FILE", "integer range": "N"}.get(option.type.name, "TEXT")
    names = ", ".join(option.opts)
    meaning = option.help or ""
    if option.show_default:
        meaning += f" Default: {option.default}."
    return f"| {_cell(f'`{names} {value}`' if value else f'`{names}`')} | {_cell(meaning)} |"


def _cell(text: str) -> str:
    """Return text that is safe in a table cell."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(command_reference(), end="")
