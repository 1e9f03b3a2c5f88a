"""Cron lines and time zones: which are right, and the words for those that are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner.config import schedule_fields
from runner.config.loader import load_text
from runner.errors import Problem


def problem(text: str, environ: dict[str, str] | None = None) -> Problem:
    """Return the one problem of a producer with these options."""
    text = f"version: 1\nproducers: {{p: {{handler: 'a:b', to: q, {text}}}}}\n"
    (found,) = load_text(text, Path("a.yaml"), environ or {}).problems
    return found


GOOD = [
    "* * * * *",
    "*/5 * * * *",
    "0 6 * * mon-fri",
    "0 6 * * MON-FRI",
    "0 6 * jan,jul *",
    "5,35 0-6/2 1-15 * *",
    "0 0 * * 0",
    "0 0 * * 7",
    "0 0 l * *",
    "0 0 * * fri#2",
    "0 0 * * 5L",
    "0 0 29 2 *",
    "0 0 31 2 mon",
]


@pytest.mark.parametrize("line", GOOD)
def test_cron_lines_with_numbers_names_lists_ranges_and_steps(line: str) -> None:
    """As in crontab; names in any case."""
    assert schedule_fields.cron(line) == line


def test_blanks_between_fields_do_not_matter() -> None:
    """One is left of them."""
    assert schedule_fields.cron("  0   6 * *\tmon ") == "0 6 * * mon"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("60 * * * *", 'the minute "60" in "60 * * * *" is not valid'),
        ("* 24 * * *", 'the hour "24" in "* 24 * * *" is not valid'),
        ("* * 0 * *", 'the day of the month "0" in "* * 0 * *" is not valid'),
        ("* * 32 * *", 'the day of the month "32" in "* * 32 * *" is not valid'),
        ("* * * 13 *", 'the month "13" in "* * * 13 *" is not valid'),
        ("* * * janu *", 'the month "janu" in "* * * janu *" is not valid'),
        ("* * * * 8", 'the day of the week "8" in "* * * * 8" is not valid'),
        ("* * * * fri-mon", 'the day of the week "fri-mon" in "* * * * fri-mon" is not valid'),
        ("*/0 * * * *", 'the minute "*/0" in "*/0 * * * *" is not valid'),
        ("1,,2 * * * *", 'the minute "1,,2" in "1,,2 * * * *" is not valid'),
        ("-1 * * * *", 'the minute "-1" in "-1 * * * *" is not valid'),
        ("? * * * *", 'the minute "?" in "? * * * *" is not valid'),
        ("², * * * *", 'the minute "²," in "², * * * *" is not valid'),
        ("* * * * mon#6", 'the day of the week "mon#6" in "* * * * mon#6" is not valid'),
        ("61 25 * * *", 'the minute "61" in "61 25 * * *" is not valid'),
        ("0 0 30 2 *", 'the time "0 0 30 2 *" never comes'),
        ("0 0 31 4,6 *", 'the time "0 0 31 4,6 *" never comes'),
        ("* * * *", "a cron line has five fields, not 4"),
        ("0 * * * * *", "a cron line has five fields, not 6"),
        ("every day", "a cron line has five fields, not 2"),
        ("", "a cron line has five fields, not 0"),
        (f"{'1' * 5000} * * * *", "a cron line has five fields, not more than 200 characters"),
    ],
)
def test_a_wrong_cron_line_is_told_in_our_words(line: str, message: str) -> None:
    """Which field, and what it is."""
    found = problem(f"cron: '{line}'")
    assert (found.code, found.path, found.message) == ("bad-cron", "producers.p.cron", message)


@pytest.mark.parametrize(
    ("line", "help_"),
    [
        ("* 24 * * *", "write 0 to 23; also *, lists 1,2, ranges 1-5 that go up, and steps */2"),
        ("* * * * x", "write 0 to 7 (0 and 7 are Sunday), or sun to sat; also *, lists 1,2, ranges 1-5 that go up,"),
        ("* * *", 'write minute, hour, day of the month, month, day of the week, as in "0 6 * * mon-fri"'),
        ("@daily", 'write "0 0 * * *"'),
        ("@HOURLY", 'write "0 * * * *"'),
        ("0 0 31 2 *", "write a day that the month has; L is the last one"),
    ],
)
def test_the_help_says_what_can_stand_there(line: str, help_: str) -> None:
    """The field's range, or the line for a nickname."""
    assert problem(f"cron: '{line}'").help.startswith(help_)


def test_what_is_no_text_is_no_cron_line() -> None:
    """A number was meant as something else."""
    assert problem("cron: 5").code == "wrong-type"


def test_an_interpolated_cron_line_is_not_shown() -> None:
    """It may be a secret that came to the wrong place."""
    found = problem("cron: '${C}'", {"C": "s3cret * * * *"})
    assert found.message == "the minute in the value of ${C} is not valid"


@pytest.mark.parametrize("name", ["Europe/Berlin", "UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_time_zones_are_those_of_the_iana_database(name: str) -> None:
    """By their full name."""
    assert schedule_fields.timezone(name) == name


@pytest.mark.parametrize(
    ("name", "help_"),
    [
        ("Europe/Berln", 'did you mean "Europe/Berlin"?'),
        ("europe/berlin", 'write "Europe/Berlin"'),
        ("Europe", None),
        ("../../../etc/passwd", None),
        ("/etc/passwd", None),
        ("zzzzzz", "write a name of the IANA database, as in Europe/Berlin"),
        ("", None),
    ],
)
def test_an_unknown_time_zone_is_told_with_the_one_that_was_meant(name: str, help_: str | None) -> None:
    """Folders and paths are none."""
    found = problem(f"cron: '* * * * *', timezone: '{name}'")
    assert (found.code, found.message) == ("unknown-timezone", f'there is no time zone "{name}"')
    assert help_ is None or found.help == help_


def test_a_machine_without_its_own_time_zones_has_all_of_them() -> None:
    """Some images have no list of time zones, and Debian 13 keeps the old names in a package of their own."""
    code = "from zoneinfo import ZoneInfo; [ZoneInfo(name) for name in ('Europe/Berlin', 'EST', 'US/Eastern')]"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONTZPATH": ""})


def test_a_machine_without_time_zones_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name may be right; it is the machine that lacks something."""
    monkeypatch.setattr(schedule_fields, "available_timezones", lambda: set[str]())
    found = problem("cron: '* * * * *', timezone: Europe/Berln")
    assert found.help == "this machine has no list of time zones: install the package tzdata"


def test_cronsim_is_imported_only_where_it_is_used() -> None:
    """Most pipelines have no cron line."""
    code = (
        "import sys; from pathlib import Path; from runner.config.loader import load_text\n"
        "text = 'version: 1\\nproducers: {p: {handler: a.b:c, to: q%s}}\\n'\n"
        "assert load_text(text % '', Path('a.yaml'), {}).spec\n"
        "assert 'cronsim' not in sys.modules\n"
        'assert load_text(text % \', cron: "* * * * *"\', Path("a.yaml"), {}).spec\n'
        "assert 'cronsim' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
