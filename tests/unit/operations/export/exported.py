"""A pipeline, and what `export` writes of it, for the tests of single files."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

from runner.operations.export.compose import compose
from runner.operations.export.definitions import vhost_of
from runner.operations.export.deployment import Deployment, deployment
from runner.operations.export.kubernetes import kubernetes
from runner.operations.export.permissions import Permissions, permissions
from runner.operations.pipeline_files import read_specs
from runner.system import System, load

HANDLERS = """
def handle(order: dict) -> dict:
    return order


def make(token: str, size: int, word: str):
    yield {}
"""


SHOP = """
    version: 1
    name: shop
    broker: {url: "${SHOP_URL}", topology: "${MODE:-manage}"}
    events: {paid: {}}
    queues:
      orders: {}
      ordered: {}
      single: {single_active_consumer: true}
      outbox: {}
    producers:
      make: {handler: "exported_work:make", to: orders, with: {token: "${API}", size: "${SIZE:-3}", word: "${WORD}"}}
    subscribers:
      handle: {from: orders, handler: "exported_work:handle", to: outbox, concurrency: 7, prefetch: 30}
      hear: {from: paid, handler: "exported_work:handle", concurrency: 3}
      in_order: {from: ordered, handler: "exported_work:handle", order_by: id}
      single: {from: single, handler: "exported_work:handle"}
    shutdown: {grace: 45500ms}
"""


IN_A_FILE = SHOP.replace('broker: {url: "${SHOP_URL}", topology: "${MODE:-manage}"}', "broker: file:data/shop.queue")


ENVIRON = {"SHOP_URL": "amqp://ann:secret-canary@rabbit.host/my%20shop", "API": "api-canary", "WORD": "word-canary"}


READ = Path("shop.yaml")


def read(text: str = SHOP, **environ: str) -> System:
    READ.write_text(dedent(text))
    return load([READ], {**ENVIRON, **environ})


def known(system: System, http: tuple[str, int] | None = None) -> Deployment:
    return deployment(system.pipelines, read_specs([READ], ENVIRON), http)


def objects(system: System, http: tuple[str, int] | None = None) -> dict[str, Any]:
    text = kubernetes(system.pipelines, system.whole_topology, known(system, http))
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


def services(system: System, http: tuple[str, int] | None = None) -> Any:
    return yaml.safe_load(compose(known(system, http), vhost_of(system.broker)))["services"]


def rights(system: System) -> Permissions:
    return permissions(system.pipelines, system.whole_topology, vhost_of(system.broker))
