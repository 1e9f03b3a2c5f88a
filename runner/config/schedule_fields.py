"""Validators of cron lines and time zones. Imported only for pipelines that have one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from runner.config.document import Interpolated
from runner.config.fields import text
from runner.config.messages import describe, quoted, spec_error, typo_of

_FIELDS: Final = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, or L for the last"),
    ("month", "1 to 12, or jan to dec"),
    ("day of the week", "0 to 7 (0 and 7 are Sunday), or sun to sat"),
)
_NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EXAMPLE: Final = 'minute, hour, day of the month, month, day of the week, as in "0 6 * * mon-fri"'
_WITH_ZONE: Final = re.compile(r"(?:CRON_TZ=|TZ=)(\S+)\s+(.*)|(\S+(?:\s+\S+){4})\s+([A-Z]\w+/\w+|UTC)")
_STEP: Final = re.compile(r"\*/([1-9]\d*)(?: \*){4}|0 \*/([1-9]\d*)(?: \*){3}")
_MAX_CHARACTERS: Final = 200
_NEW_YEAR: Final = datetime(2024, 1, 1)


def cron(value: object) -> str:
    """Return a cron line of five fields with one space between them. Source: man 5 crontab, as cronsim reads it."""
    from runner.config import guesses

    if isinstance(value, list | dict | int):
        meant = guesses.cron_of(value)
        message = f"a cron line is one text, not {describe(value)}"
        help_ = f"write {'a producer for each line: ' if isinstance(value, list) else ''}{_EXAMPLE}"
        help_ = f'write `cron: "{meant}"`' if meant else help_
        raise spec_error("wrong-type", message, help_, replacement=f'"{meant}"' if meant else "")
    line = text(value)
    parts = line.split()
    if nickname := _NICKNAMES.get(line.strip().lower()):
        message = f"nicknames like {quoted(value)} are not supported"
        raise spec_error("bad-cron", message, f'write "{nickname}"', replacement=f'"{nickname}"')
    hint, written = ("", "") if isinstance(value, Interpolated) else _meant(line.strip(), parts)
    if len(parts) != len(_FIELDS) or len(line) > _MAX_CHARACTERS:
        message = f"a cron line has five fields, not {_number(parts, line)}"
        raise spec_error("bad-cron", message, hint or f"write {_EXAMPLE}", replacement=written)
    if bad := next(_bad_fields(parts), None):
        (name, allowed), part = bad
        shown = "" if isinstance(value, Interpolated) else f' "{part}"'
        help_ = f"write {allowed}; also *, lists 1,2, ranges 1-5 that go up, and steps */2"
        message = f"the {name}{shown} in {quoted(value)} is not valid"
        raise spec_error("bad-cron", message, hint or help_, replacement=written)
    if not _occurs(parts):
        message = f"the time {quoted(value)} never comes"
        raise spec_error("bad-cron", message, "write a day that the month has; L is the last one")
    return " ".join(parts)


def _meant(line: str, parts: list[str]) -> tuple[str, str]:
    """Return the help for a wrong line whose meaning is known, and the cron line to write if it is one."""
    from runner.config import guesses

    meant, removed = guesses.cron(line)
    if meant and (next(_bad_fields(meant.split()), None) or not _occurs(meant.split())):
        meant = ""
    if len(parts) != len(_FIELDS) and (daily := guesses.calendar(line)):
        return f'write "{daily}"', f'"{daily}"'
    if every := guesses.duration(line.lower().removeprefix("every ")):
        return f'write "every: {every}" in place of cron', ""
    if step := _STEP.fullmatch(" ".join(parts)):
        return f'write "every: {f"{step[1]}m" if step[1] else f"{step[2]}h"}" in place of cron', ""
    if zone := _WITH_ZONE.fullmatch(line):
        return f'write `cron: "{zone[2] or zone[3]}"` and `timezone: {zone[1] or zone[4]}`', ""
    if meant:
        return f'remove {removed}: "{meant}"', f'"{meant}"'
    is_short = len(parts) == 4 and parts[2:] == ["*", "*"]
    return f'write "{line} *": {_EXAMPLE.partition(", as in")[0]}' if is_short else "", ""


def _number(parts: list[str], line: str) -> str:
    return f"more than {_MAX_CHARACTERS} characters" if len(line) > _MAX_CHARACTERS else str(len(parts))


def _bad_fields(parts: list[str]) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield each invalid field, with its name and its allowed values."""
    for index, part in enumerate(parts):
        line = ["*"] * len(parts)
        line[index] = part
        step = re.fullmatch(r"\*/(\d+)", part)
        try:
            CronSim(" ".join(line), _NEW_YEAR)
            if step is not None and index < 2 and int(step[1]) > (60, 24)[index]:  # it would be due only at 0
                yield _FIELDS[index], part
        except CronSimError:
            # all other fields are stars, so only this field can be wrong
            yield _FIELDS[index], part


def _occurs(parts: list[str]) -> bool:
    """Whether a day exists, unlike the 30th of February."""
    try:
        return next(CronSim(" ".join(parts), _NEW_YEAR), None) is not None
    except CronSimError:
        return False


def timezone(value: object) -> str:
    """Return the IANA name of a time zone of this machine."""
    value = f"{value:+d}" if type(value) is int else value
    name = text(value)
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, a path out of the database, or a folder such as "Europe"
        message = f"there is no time zone {quoted(value)}"
        if isinstance(value, Interpolated):
            message = f"{quoted(value)} is not the name of a time zone"
        raise spec_error("unknown-timezone", message, _zone_help(value)) from None
    return str(name)


def _zone_help(value: object) -> str:
    zones = available_timezones()
    if not zones:
        return "this machine has no list of time zones: install the package tzdata"
    example = "write a name of the IANA database, as in Europe/Berlin"
    if isinstance(value, Interpolated):
        return example
    from runner.config import guesses

    if help_ := guesses.zone(str(value), zones):
        return help_
    names = sorted(name for name in zones if "/" in name and name[0].isupper() and not name.startswith("Etc/"))
    match = typo_of(str(value), names) if "/" in str(value) else None
    is_near = match and typo_of(str(value).rpartition("/")[2], [match.rpartition("/")[2]])  # not by its continent alone
    return f'did you mean "{match}"?' if is_near else example
