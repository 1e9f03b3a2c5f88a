"""`runner call`: ask a question, and print the answer."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import click

from runner.cli import options
from runner.cli.loader import PipelineOptions, echo_broker_state
from runner.cli.payloads import check_json, check_name, headers_option, load_destination, read_body
from runner.cli.verb import Verb, complete_names
from runner.errors import CallFailed, NoAnswer
from runner.redaction import escape_controls

if TYPE_CHECKING:
    from runner.system import System


@click.command("call", cls=Verb, short_help="Ask a question, and print the answer.")
@options.pipelines(options.broker, options.wait, is_one=True)
@click.argument("name", callback=check_name, shell_complete=complete_names("queues", "events"))
@click.argument("payload", default="-", metavar="[PAYLOAD|@FILE|-]")
@click.option(
    "--timeout",
    "timeout_s",
    default="5s",
    metavar="DURATION",
    show_default=True,
    callback=options.duration,
    help="How long to wait for the answer.",
)
@headers_option
@click.option("--id", "message_id", metavar="TEXT", help="Id of the message.  [default: a new one]")
@options.style("text", "json", help="The body of the answer alone, or a JSON object with `answer` and `headers`.")
def command(
    chosen: PipelineOptions,
    name: str,
    payload: str,
    timeout_s: float,
    headers: dict[str, str],
    message_id: str | None,
    style: str,
) -> None:
    """Publish PAYLOAD to the queue or event NAME of the pipeline at PATH, and print the answer of its subscriber.

    A subscriber answers with its result unless it has a `to` and no `reply: true`. Of several subscribers of an event,
    the first answer is printed. The message is like any other: it is retried, and dead-lettered when its handler gives
    up, which is said on stderr. It expires when --timeout is over and no subscriber has taken it. Nothing is declared:
    a question that no queue takes fails at once.

    PATH, NAME and PAYLOAD are those of `runner publish`. On a broker in a file, it works beside
    `runner up`, which answers.

    Exit codes: 0 answered, 1 the handler gave up or the message was refused, 2 wrong usage, 69 broker unreachable,
    75 no answer in time, 78 invalid pipeline.
    """
    from runner import app

    body = read_body(payload)
    check_json(payload, [body])
    system = load_destination(chosen, name)
    try:
        answer = asyncio.run(app.call(system, name, body, headers, message_id, timeout_s, echo_broker_state))
    except NoAnswer as missing:
        missing.hint = _without_reply(system, name) or missing.hint
        raise
    except CallFailed as failure:
        if style == "json":
            about = {"error": failure.error, "error_type": failure.error_type, "reason": failure.reason}
            click.echo(json.dumps(about, ensure_ascii=False))
        raise
    if style == "json":
        found = {"answer": answer.payload, "headers": dict(answer.headers)}
        click.echo(json.dumps(found, ensure_ascii=False, default=str))
    elif isinstance(answer.payload, bytes):
        click.echo(answer.body, nl=False)
    elif sys.stdout.isatty():
        click.echo("\n".join(map(escape_controls, answer.body.decode().split("\n"))))
    else:
        click.echo(answer.body)


def _without_reply(system: System, name: str) -> str:
    """Return what to write in a pipeline whose subscribers of a queue or event do not answer, "" if one does."""
    from runner.pipeline.topic_patterns import matches

    subscribers = (item for pipeline in system.pipelines for item in pipeline.subscribers)
    asked = [each for each in subscribers if each.queue == name or any(matches(p, name) for p in each.event_patterns)]
    able = next((each for each in asked if each.batch is None), None)
    if not asked or any(each.replies for each in asked):
        return ""
    if able is None:
        return f'subscriber "{asked[0].name}" takes batches, which are never answered: publish the message'
    return f'subscriber "{able.name}" does not answer: write `reply: true` under it'
