"""Values as people write them: what is read again is exactly the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.config.fields import Rate, Size
from runner.config.spec import ShutdownSpec
from runner.operations.type_shapes import field_shape, shape
from runner.operations.value_format import format_value
from runner.units import parse_duration, parse_rate, parse_size

DURATION = field_shape(ShutdownSpec.model_fields["grace"])


@given(st.floats(0, 1e8))
def test_durations_are_exact(seconds: float) -> None:
    """Also those finer than a millisecond."""
    assert parse_duration(format_value(seconds, DURATION)) == seconds


@given(
    st.one_of(
        st.floats(1e-6, 1e6), st.integers(1, 10**6).map(lambda n: n / 60), st.integers(1, 999).map(lambda n: n / 3600)
    )
)
def test_rates_are_exact(per_second: float) -> None:
    """Whole numbers for each minute or hour stay what they were."""
    assert parse_rate(format_value(per_second, shape(Rate))) == per_second


@given(st.integers(1, 2**53))
def test_sizes_are_exact(count: int) -> None:
    """In the largest unit that stays whole."""
    assert parse_size(format_value(count, shape(Size))) == count


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (90.0, DURATION, "90s"),
        (86_400.0, DURATION, "1d"),
        (0.25, DURATION, "250ms"),
        (0.0015, DURATION, "0.0015s"),
        (1024**2, shape(Size), "1MiB"),
        (64_000, shape(Size), "64kB"),
        (1, shape(Size), "1B"),
        (100.0, shape(Rate), "100/s"),
        (10 / 60, shape(Rate), "10/m"),
        (5 / 3600, shape(Rate), "5/h"),
    ],
)
def test_units_are_those_that_people_use(value: float, kind: object, text: str) -> None:
    """No number without its unit."""
    assert format_value(value, kind) == text  # type: ignore[arg-type]
