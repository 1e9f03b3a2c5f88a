"""The `--help` of a verb: its options in groups, with defaults and variables, and examples. Completion in shells."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import click
from click.core import augment_usage_errors
from click.shell_completion import CompletionItem

_GROUPS = {
    "Broker": ("broker", "management", "wait_s"),
    "Output": ("log_format", "log_level", "style", "is_json", "output", "format", "messages"),
}


class Verb(click.Command):
    """A command whose `--help` has its options in groups, and examples. A name in place of its path is wrong usage."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and check those that are paths of pipelines."""
        from runner.cli.options import variable_of

        for item in self.params:
            if isinstance(item, click.Option) and item.envvar is None:
                item.envvar = variable_of(item, ctx)
        own = {option: item for item in self.params if isinstance(item, click.Option) for option in item.opts}
        for name, following in pairwise(args):
            if name in own and not own[name].is_flag and following.partition("=")[0] in own:
                raise click.BadOptionUsage(name, f"Option '{name}' requires an argument.", ctx)
        arguments = list(args)
        with augment_usage_errors(ctx):
            rest = super().parse_args(ctx, args)
        paths = ctx.params.get("paths") or [ctx.params.get("path"), ctx.params.get("old")]
        is_wrong = any(path and not path.exists() for path in paths)
        if not ctx.resilient_parsing and (is_wrong or ctx.params.get("queue") or "payload" in ctx.params):
            from runner.cli.misplaced import check_paths

            check_paths(ctx, arguments)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in groups."""
        rows: dict[str, list[tuple[str, str]]] = {"Options": [], **{name: [] for name in _GROUPS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                group = next((name for name, names in _GROUPS.items() if parameter.name in names), "Options")
                rows[group].append(record)
        for name, records in rows.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if found := examples(ctx.command_path):
            with formatter.section("Examples"):
                formatter.write("".join(f"{' ' * formatter.current_indent}{line}\n" for line in found))


def examples(command_path: str) -> list[str]:
    """Return command lines for a command, such as `runner dead list`."""
    from runner.tables import read_table

    name = command_path.partition(" ")[2]
    return [line for command, line in read_table("runner.cli", "examples.txt", 2) if command == name]


def complete_names(*sections: str) -> Any:
    """Return the function that completes names in some sections of the pipeline that stands before."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from runner.cli.misplaced import names_in
        from runner.config.loader import pipelines_here

        paths = context.params.get("paths") or [context.params.get("path")]
        files = [path for path in paths if path] or pipelines_here()[:1]
        names = dict.fromkeys(name for file in files for name in names_in(file, *sections))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


def complete_codes(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the code of an error, with the first line of its explanation."""
    from runner.operations.explanations import explanations

    return [
        CompletionItem(code, help=entry.text.splitlines()[0])
        for code, entry in explanations().items()
        if code.startswith(incomplete)
    ]
