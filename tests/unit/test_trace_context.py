"""Which trace headers are valid, and which of them a result gets."""

from __future__ import annotations

from typing import Any

import pytest

from runner.message import NO_HEADERS, Envelope
from runner.trace_context import (
    MAX_CHARACTERS,
    shared_trace_headers,
    trace_fields,
    trace_headers,
    trace_id_of,
    with_trace_headers,
)

TRACE, OTHER, SPAN = "0af7651916cd43dd8448eb211c80319c", "1" * 32, "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("value", [PARENT, f"00-{TRACE}-{SPAN}-00", f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-x"])
def test_a_valid_traceparent_names_its_trace(value: str) -> None:
    assert trace_id_of({"traceparent": value}) == TRACE
    assert trace_fields({"traceparent": value}) == {"trace_id": TRACE}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-x",
        f"00-{TRACE}-{SPAN}-01 ",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"{PARENT},{PARENT}",
        PARENT.encode(),
        17,
        None,
        ["00"],
    ],
)
def test_an_invalid_traceparent_counts_as_none_and_so_does_its_tracestate(value: Any) -> None:
    headers = {"traceparent": value, "tracestate": "a=1", "baggage": "k=v"}
    assert trace_id_of(headers) is None
    assert trace_fields(headers) == {}
    assert trace_headers(headers) == {"baggage": "k=v"}


def test_results_get_the_three_headers_and_no_others() -> None:
    headers = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v", "tenant": "north", "Traceparent": "x"}
    assert trace_headers(headers) == {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"}
    assert trace_headers({}) is trace_headers({"tenant": "north"}) is NO_HEADERS


@pytest.mark.parametrize("value", ["", "x" * (MAX_CHARACTERS + 1), "a=1\nb=2", "a=é", "a=\udcff", 5, b"a=1", {"a": 1}])
def test_invalid_values_are_not_passed_on(value: Any) -> None:
    assert trace_headers({"traceparent": PARENT, "tracestate": value, "baggage": value}) == {"traceparent": PARENT}


def test_own_headers_win_and_a_tracestate_stays_with_its_parent() -> None:
    carried = trace_headers({"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"})
    own = {"traceparent": f"00-{OTHER}-{SPAN}-01"}
    assert with_trace_headers({}, carried) == carried
    assert with_trace_headers(own, carried) == {**own, "baggage": "k=v"}
    assert with_trace_headers({"baggage": "k=w", "tenant": 1}, carried) == {**carried, "baggage": "k=w", "tenant": 1}
    assert with_trace_headers(own, NO_HEADERS) is own


def shared(*headers: dict[str, str]) -> Any:
    return shared_trace_headers([Envelope(b"", headers=each) for each in headers])


def test_results_of_several_messages_get_the_headers_that_these_share() -> None:
    one = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"}
    same_trace = {"traceparent": f"00-{TRACE}-{'2' * 16}-01", "baggage": "k=v"}
    other = {"traceparent": f"00-{OTHER}-{SPAN}-01", "baggage": "k=v"}
    assert shared(one) == one
    assert shared(one, same_trace) == one
    assert shared(one, other) == {"baggage": "k=v"}
    assert shared(one, {}) is shared({}, one) is NO_HEADERS
