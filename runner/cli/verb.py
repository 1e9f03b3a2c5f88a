"""The `--help` of a verb: its options in groups, with defaults and variables, and examples. Completion in shells."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": ("runner init shop",),
    "up": (
        "runner up pipeline.yaml",
        "runner up pipelines --broker amqp://localhost --workers 4",
        "runner up pipeline.yaml --only ship --log-level debug",
        "runner up pipeline.yaml --overlay prod.yaml --set subscribers.ship.concurrency=20",
    ),
    "dev": ("runner dev pipeline.yaml",),
    "validate": ("runner validate pipeline.yaml", "runner validate pipelines --strict --format github"),
    "test": (
        "runner test .",
        "runner test shop.test.yaml --only paid",
        "runner test tests --coverage --junit report.xml",
    ),
    "config": ("runner config pipeline.yaml", "runner config pipeline.yaml --overlay prod.yaml --origin"),
    "graph": ("runner graph pipeline.yaml", "runner graph pipelines --format svg > flow.svg"),
    "diff": ("runner diff old.yaml new.yaml", "runner diff ../main/pipelines pipelines --breaking --format github"),
    "plan": ("runner plan pipeline.yaml --broker amqp://localhost",),
    "apply": ("runner apply pipeline.yaml", "runner apply pipeline.yaml --recreate order_queue"),
    "publish": (
        """runner publish pipeline.yaml order_queue '{"id": 1}'""",
        "runner publish pipeline.yaml order.paid @order.json --header tenant=a",
        "runner publish pipeline.yaml order_queue --lines --rate 100/s < orders.jsonl",
    ),
    "call": (
        """runner call pipeline.yaml quotes '{"parcel": 7}'""",
        "runner call pipeline.yaml quotes @parcel.json --timeout 30s --format json",
    ),
    "tap": (
        "runner tap pipeline.yaml order.paid",
        "runner tap pipeline.yaml order.paid --limit 5 --record paid.test.yaml",
    ),
    "status": ("runner status pipeline.yaml", "runner status pipelines --watch"),
    "pause": ("""runner pause pipeline.yaml ship --reason "the carrier is down\"""",),
    "resume": ("runner resume pipeline.yaml ship",),
    "page": ("runner page pipelines --http 127.0.0.1:8080",),
    "dead list": ("runner dead list pipeline.yaml", "runner dead list pipeline.yaml ship --older-than 1h"),
    "dead show": (
        "runner dead show pipeline.yaml --id 4f1c",
        "runner dead show pipeline.yaml --id 4f1c --record shop.test.yaml",
    ),
    "dead replay": (
        "runner dead replay pipeline.yaml ship --dry-run",
        "runner dead replay pipeline.yaml ship --rate 10/s",
    ),
    "dead drop": ("runner dead drop pipeline.yaml ship --older-than 30d",),
    "explain": ("runner explain unknown-key",),
    "schema": ("runner schema > pipeline.schema.json",),
}
"""Command lines for the commands, by name."""

_GROUPS = {
    "Broker": ("broker", "management", "wait_s"),
    "Output": ("log_format", "log_level", "style", "is_json", "output", "format", "messages"),
}


class Verb(click.Command):
    """A command whose `--help` has its options in groups, and examples."""

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
        found = EXAMPLES.get(ctx.command_path.partition(" ")[2], ())
        if found:
            with formatter.section("Examples"):
                formatter.write("".join(f"{' ' * formatter.current_indent}{line}\n" for line in found))


def complete_names(*sections: str) -> Any:
    """Return the function that completes names in some sections of the pipeline that stands before."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from runner.cli.usage import names_in
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
