"""Attributes of a payload that its annotation does not have are found in the source of a handler."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from runner.pipeline.payload_use import missing_attributes
from runner.pipeline.signature import payload_annotation, read_handler

HEAD = """
from dataclasses import dataclass
from pydantic import BaseModel

@dataclass
class Order:
    number: int

class Bill(BaseModel):
    cents: int

"""


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def work(order: dict): return order.number", [("order.number", "")]),
        ("def work(order: dict[str, int]): return order.items()", []),
        (
            "async def work(order: str): return order.number + order.uper()",
            [("order.number", ""), ("order.uper", "upper")],
        ),
        ("def work(order: Order): return order.numbr", [("order.numbr", "number")]),
        ("def work(bill: Bill): return bill.cent", [("bill.cent", "cents")]),
        ("def work(bill: Bill): return bill.model_dump()", []),
        ("def work(bill: Bill): return bill.something_else", []),  # a model may get it at run time
        ("def work(order): return order.number", []),
        ("def work(order: dict):\n    order = Order(**order)\n    return order.number", []),
        ("def work(order: dict):\n    return [order.number for order in []]", []),
        ("def work(order: str):\n    if hasattr(order, 'number'):\n        return order.number", []),
        ("def work(order: str):\n    order.number = 1", []),  # no reading
    ],
)
def test_an_attribute_that_is_not_there_is_found(
    source: str, found: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uses.py").write_text(HEAD + source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "uses", raising=False)
    call = importlib.import_module("uses").work
    handler = read_handler("uses:work", call, {}, takes_payload=True)
    items = missing_attributes(call, handler.payload_parameter, payload_annotation(call, handler))
    assert [(item.text, item.guess) for item in items] == found
