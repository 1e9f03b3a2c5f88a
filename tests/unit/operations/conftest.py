"""A pipeline with every kind of source: events, queues, a headers binding, a shared dead-letter queue."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from runner.pipeline.model import Pipeline
from runner.system import load

PIPELINE = """
    version: 1
    name: shop
    exchanges: {hdr: headers}
    queues:
      orders: {events: [order.paid]}
      plain:
      pdf: {bind: [{exchange: hdr, headers: {kind: pdf}, match: any}]}
    events:
      order.paid:
      order.sent: {exchange: other, key: sent}
    subscribers:
      handle: {from: orders, handler: json:dumps}
      hear: {from: "order.*", handler: json:dumps, retry: {attempts: 3, delay: 2s}}
      plainly: {from: plain, handler: json:dumps}
      bury: {from: [order.paid], handler: json:dumps, queue: {dead_letter: plain}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Pipeline:
    path = tmp_path / "shop.yaml"
    path.write_text(dedent(PIPELINE))
    return load([path], {}).pipelines[0]
