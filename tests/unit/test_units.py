"""Durations, sizes and rates as people write them."""

import pytest

from runner.units import format_address, format_duration, parse_address, parse_duration, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("1s", 1.0),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("2d", 172_800.0),
        (" 1s ", 1.0),
        (2, 2.0),
    ],
)
def test_a_duration_is_read_as_seconds(text: str | float, seconds: float) -> None:
    """Each unit, decimals, and a plain number of seconds from code."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "-1s", "1S", "1w", "١s1", float("nan"), float("inf"), -1, True])
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    """No guessing: a number without its unit may be anything."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("1B", 1), ("64kB", 64_000), ("1MiB", 1_048_576), ("1.5GB", 1_500_000_000)])
def test_a_size_is_read_as_bytes(text: str, size: int) -> None:
    """Decimal and binary units."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["1", "1KB", "MB", "1 MB", "-1B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """The units are those of the contract."""
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/s", 100.0), ("30/m", 0.5), ("108/d", 0.00125), ("1.5/s", 1.5), (" 1/s ", 1.0), ("0/s", 0.0)],
)
def test_a_rate_is_read_as_times_per_second(text: str, rate: float) -> None:
    """Per second, minute, hour and day."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "100", "100/", "/s", "100 / s", "100/w", "-1/s", "100/2s", "1e3/s", "100ps"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    """No guessing here either."""
    with pytest.raises(ValueError, match="not a rate"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["250ms", "1s", "90s", "5m", "1h", "36h", "2d", "0ms"])
def test_a_duration_is_written_as_it_is_read(text: str) -> None:
    """Writing and reading again gives the same time."""
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize("text", ["127.0.0.1:8080", "localhost:80", "[::1]:9090", "[::]:65535"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    """Also one of IPv6, whose host has colons."""
    assert format_address(*parse_address(text)) == text
