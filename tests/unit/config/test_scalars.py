"""YAML 1.2 core scalars, and nothing of YAML 1.1."""

from __future__ import annotations

import math

import pytest

from runner.config.scalars import ScalarValue, resolve_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("nUll", "nUll"),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("0", 0),
        ("-0", 0),
        ("+16", 16),
        ("-7", -7),
        ("010", "010"),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z"),
        ("1.10", 1.1),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("-1.5E-3", -0.0015),
        ("1.2.3", "1.2.3"),
        (".", "."),
        ("-", "-"),
        ("+", "+"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("inf", "inf"),
        ("<<", "<<"),
        ("=", "="),
        ("\u0661", "\u0661"),
    ],
)
def test_a_plain_scalar_has_the_value_of_the_core_schema(text: str, value: ScalarValue) -> None:
    """Only null, true, false and numbers are converted; `yes`, `010`, times and dates stay text."""
    resolved = resolve_scalar(text)
    assert resolved == value
    assert type(resolved) is type(value)


def test_not_a_number_is_a_float() -> None:
    """`.nan` is parsed, so that validation can refuse it as a number."""
    assert math.isnan(resolve_scalar(".nan"))  # type: ignore[arg-type]


def test_a_number_with_thousands_of_digits_stays_text() -> None:
    """Python refuses to convert it; a file must not make us raise."""
    assert resolve_scalar("9" * 5000) == "9" * 5000
