"""Warnings stand beside errors, except those that an error may have caused."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config.loader import load_text
from runner.pipeline.spec_checks import check_names

HEAD = "version: 1\nqueues: {orders: , bills: , receipts: }\nevents: {paid: }\n"
BOUNDS = "concurrency: 8, prefetch: 2"


def codes(text: str) -> list[str]:
    return sorted(problem.code for problem in check_names(load_text(HEAD + text, Path("p.yaml"), {}))[1])


def subscribers(*options: str) -> str:
    sources = ("orders", "bills", "receipts")
    items = (
        f"  {source}_reader: {{from: {source}, handler: 'a:b', {each}}}"
        for source, each in zip(sources, options, strict=True)
    )
    return "subscribers:\n" + "\n".join(items) + "\n  hear: {from: paid, handler: 'a:b', to: orders}\n"


PLACE = "producers: {place: {handler: 'a:b', to: [orders, bills, receipts, paid]%s}}\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((BOUNDS, "", ""), ["low-prefetch"]),
        ((BOUNDS, "timeout: 10", ""), ["bad-duration", "low-prefetch"]),
        ((BOUNDS, "concurrency: many", ""), ["low-prefetch", "wrong-type"]),  # that of another item is no reason
        (("concurrency: many, prefetch: 2", "", ""), ["wrong-type"]),
    ],
)
def test_a_warning_is_left_out_if_the_value_that_is_its_reason_is_wrong(
    options: tuple[str, ...], expected: list[str]
) -> None:
    assert codes(PLACE % "" + subscribers(*options)) == expected


@pytest.mark.parametrize(
    ("producers", "reader", "expected"),
    [
        (PLACE % "", "from: receipts", []),
        (PLACE % ", rate: fast", "from: orders", ["bad-rate", "shared-queue", "unread-queue"]),
        (PLACE % ", evry: 5m", "from: orders", ["shared-queue", "unknown-key", "unread-queue"]),
        (PLACE % "", "from: recipts", ["unknown-name"]),  # it may be the one of receipts
        (PLACE % "", "form: [receipts, orders", ["yaml-syntax"]),
        (PLACE.replace("paid", "payd") % "", "from: receipts", ["unknown-name"]),  # so paid may have a publisher
    ],
)
def test_what_is_said_of_routes_needs_all_of_them(producers: str, reader: str, expected: list[str]) -> None:
    items = ["orders", "bills"]
    readers = "".join(f"  {name}_reader: {{from: {name}, handler: 'a:b'}}\n" for name in items)
    readers += f"  hear: {{from: paid, handler: 'a:b'}}\n  last: {{{reader}, handler: 'a:b'}}\n"
    assert codes(f"{producers}subscribers:\n{readers}") == expected
