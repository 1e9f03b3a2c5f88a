"""`runner dead replay --local`: how would each dead letter end with the handler as it is now?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from runner.cli.output import echo_err
from runner.cli.tables import json_line
from runner.outcome import Ack
from runner.redaction import escape_line

if TYPE_CHECKING:
    from runner.cli.dead_options import DeadOptions
    from runner.operations import dead_letters
    from runner.operations.dead_letter_ops import DeadLetterOps, Summary
    from runner.operations.local_replay import ReplayResult


DEFAULT_LOCAL_LIMIT = 100
"""How many are tried where nothing else is said."""


def replay_locally(dead_options: DeadOptions, *, is_json: bool) -> int:
    """Try each dead letter that fits, print how it ended, and return the exit code."""
    from runner import log
    from runner.cli.dead_options import connect_and_run, load_selection

    log.configure(level="error", stream=sys.stderr)  # with the traceback of what would be dead
    dead_options = replace(
        dead_options, limit=dead_options.limit or DEFAULT_LOCAL_LIMIT
    )  # they are held in memory together
    system, choices = load_selection(dead_options)
    logging.disable(logging.NOTSET)
    letters: list[dead_letters.DeadLetterMessage] = []

    async def find(ops: DeadLetterOps, choices: list[Any]) -> Summary:
        return await ops.find(choices, letters.append)

    async def run() -> tuple[int, Summary]:
        summary = await connect_and_run(system, choices, dead_options, find)
        return await _try_all(system.pipelines, letters, is_json=is_json), summary

    handled, summary = asyncio.run(run())
    echo_err(f"would be handled: {handled} of {summary.matched}; nothing was changed on the broker")
    return 0 if handled == summary.matched else 1


async def _try_all(pipelines: Any, letters: list[dead_letters.DeadLetterMessage], *, is_json: bool) -> int:
    from runner.operations.local_replay import LocalReplay, NoSubscriber

    handled = 0
    async with LocalReplay(pipelines) as replay:
        for letter in letters:
            try:
                with contextlib.redirect_stdout(sys.stderr):  # what the handler prints is no verdict
                    result = await replay.attempt(letter)
            except NoSubscriber as error:
                _show(letter, None, f"not tried: {error}", is_json=is_json)
                continue
            handled += isinstance(result.outcome, Ack)
            _show(letter, result, result.words, is_json=is_json)
    return handled


def _show(letter: dead_letters.DeadLetterMessage, result: ReplayResult | None, words: str, *, is_json: bool) -> None:
    if not is_json:
        click.echo(f"{escape_line(letter.id, 64)}  {escape_line(words, 2000)}")
        return
    outcome = result.outcome if result is not None else None
    click.echo(
        json_line(
            {
                "id": letter.id,
                "queue": letter.origin,
                "subscriber": result.subscriber if result is not None else None,
                "outcome": result.name if result is not None else "not-tried",
                "error_type": getattr(outcome, "error_type", None) or None,
                "error": getattr(outcome, "error", None) or None,
                "at": result.at if result is not None else None,
                "published": result.published if result is not None else 0,
            }
        )
    )
