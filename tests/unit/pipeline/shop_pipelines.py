"""Pipelines called `shop`, resolved from a few lines of YAML."""

from __future__ import annotations

from pathlib import Path

from runner.config.loader import load_text
from runner.pipeline.model import Pipeline
from runner.pipeline.resolver import Resolved, resolve
from runner.pipeline.topology import Queue

HERE = "tests.unit.pipeline.sample_handlers"


def resolved(text: str, **environ: str) -> Resolved:
    """Resolve a pipeline called `shop`, with `version: 1` added and `H:` standing for the sample handlers' module."""
    text = "version: 1\nname: shop\n" + text.replace("H:", f"{HERE}:")
    return resolve(load_text(text, Path("shop.yaml"), environ))


def pipeline(text: str, **environ: str) -> Pipeline:
    found = resolved(text, **environ)
    assert found.pipeline is not None, found.problems
    return found.pipeline


def problems(text: str, severity: str = "error") -> list[tuple[str, str, str]]:
    return [(item.code, item.path, item.help) for item in resolved(text).problems if item.severity == severity]


def queue(found: Pipeline, name: str) -> Queue:
    return next(item for item in found.topology.queues if item.name == name)


SUBSCRIBER = "subscribers:\n  s: {from: q, handler: 'H:handle'}\n"
