"""`runner dead replay --local`: how would each dead letter end with the handler as it is now?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from runner.cli.endings import say
from runner.cli.tables import json_line, safe
from runner.outcome import Ack, DeadLetter, Outcome, Retry
from runner.units import format_duration

if TYPE_CHECKING:
    from runner.cli.dead_selected import Wish
    from runner.operations import dead_letters
    from runner.operations.graveyard import Digger, Tally
    from runner.operations.rehearsal import Verdict


MOST = 100
"""How many are tried where nothing else is said."""


def tried(wish: Wish, *, is_json: bool) -> int:
    """Try each dead letter that fits, print how it ended, and return the exit code."""
    from runner import log
    from runner.cli.dead_selected import read, work_on

    log.configure(level="error", stream=sys.stderr)  # with the traceback of what would be dead
    wish = replace(wish, limit=wish.limit or MOST)  # they are held in memory together
    system, choices = read(wish)
    logging.disable(logging.NOTSET)
    letters: list[dead_letters.DeadLetter] = []

    async def find(digger: Digger, choices: list[Any]) -> Tally:
        return await digger.find(choices, letters.append)

    async def run() -> tuple[int, Tally]:
        tally = await work_on(system, choices, wish, find)
        return await _try_all(system.pipelines, letters, is_json=is_json), tally

    handled, tally = asyncio.run(run())
    say(f"would be handled: {handled} of {tally.matched}; nothing was changed on the broker")
    return 0 if handled == tally.matched else 1


async def _try_all(pipelines: Any, letters: list[dead_letters.DeadLetter], *, is_json: bool) -> int:
    from runner.operations.rehearsal import NobodyReads, Rehearsal

    handled = 0
    async with Rehearsal(pipelines) as rehearsal:
        for letter in letters:
            try:
                with contextlib.redirect_stdout(sys.stderr):  # what the handler prints is no verdict
                    verdict = await rehearsal.attempt(letter)
            except NobodyReads as error:
                _show(letter, None, f"not tried: {error}", is_json=is_json)
                continue
            handled += isinstance(verdict.outcome, Ack)
            _show(letter, verdict, _words(verdict), is_json=is_json)
    return handled


def _show(letter: dead_letters.DeadLetter, verdict: Verdict | None, words: str, *, is_json: bool) -> None:
    if not is_json:
        click.echo(f"{safe(letter.id, 64)}  {safe(words, 2000)}")
        return
    outcome = verdict.outcome if verdict is not None else None
    click.echo(
        json_line(
            {
                "id": letter.id,
                "queue": letter.origin,
                "subscriber": verdict.subscriber if verdict is not None else None,
                "outcome": _name(outcome),
                "error_type": getattr(outcome, "error_type", None) or None,
                "error": getattr(outcome, "error", None) or None,
                "at": verdict.at if verdict is not None else None,
                "published": verdict.published if verdict is not None else 0,
            }
        )
    )


def _name(outcome: Outcome | None) -> str:
    match outcome:
        case Ack():
            return "handled"
        case Retry():
            return "retried"
        case DeadLetter():
            return "dead-lettered"
    return "not-tried"


def _words(verdict: Verdict) -> str:
    """Say how it ended, with the error and where in the user's code it came from."""
    outcome = verdict.outcome
    match outcome:
        case Ack():
            results = f", {verdict.published} published" if verdict.published else ""
            return f"handled by {verdict.subscriber}{results}"
        case Retry():
            said = f"would be retried after {format_duration(outcome.after_s)}"
        case DeadLetter():
            said = f"would be dead-lettered ({outcome.reason})"
        case _:
            return "would be given back"
    error = ": ".join(part for part in (outcome.error_type, outcome.error) if part)
    place = f", at {verdict.at}" if verdict.at else ""
    return f"{said}: {error}{place}"
