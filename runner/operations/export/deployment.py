"""Operations: what a container has to know of pipelines, by names alone: variables, probes, how long to wait."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config.document import KeyPath, ScalarNode
from runner.config.loader import PipelineFile
from runner.operations.masking import is_from_secret, may_be_secret_name
from runner.operations.pipeline_files import CheckedSpec
from runner.operations.yaml_writer import Leaf, Tree
from runner.pipeline.model import Pipeline
from runner.redaction import escape_controls
from runner.units import format_duration, is_loopback

KILL_MARGIN_S = 10
"""How much longer than our own grace others wait before they kill: to settle, to close, to write the last lines."""

DEFAULT_PORT = 8080
ANY_HOST = "0.0.0.0"
BROKER_VARIABLE = "RUNNER_BROKER"

_URLS = frozenset({"url", "urls"})
_ONE_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::[-?][^}]*)?\}")
_REFERENCE = re.compile(r"(?<!\$)(?:\$\$)*\$\{([A-Za-z_]\w*)(:-)?")
_LONGEST_NAME = 50
"""Kubernetes allows 63 letters; behind it comes what kind of thing it is."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that pipelines refer to; never its value. One with a default everywhere may be missing."""

    name: str
    is_secret: bool
    has_default: bool


@dataclass(frozen=True, slots=True)
class Deployment:
    """Pipelines that run in one container. `broker_variable` is the one that holds the whole URL of the broker."""

    name: str
    paths: tuple[str, ...]
    variables: tuple[Variable, ...]
    broker_variable: str
    secret_files: tuple[str, ...]
    grace_s: float
    longest_timeout_s: float
    """The longest that a subscriber's handler may take; 0 where none has a timeout."""
    has_http: bool
    """Whether a producer takes POSTs: then others have to reach the port."""
    listens: tuple[str, int] | None
    """Where the pipelines themselves say that probes are answered."""
    http: tuple[str, int] | None
    """Where the command line says so."""

    @property
    def stop_timeout_s(self) -> int:
        """How long to wait between asking for the end and killing: a handler may have begun just before."""
        return math.ceil(self.grace_s + self.longest_timeout_s) + KILL_MARGIN_S

    @property
    def notes(self) -> list[str]:
        """What is to be said about the pipelines wherever they run."""
        notes = [f"The pipeline reads the file {escape_controls(name)}: mount it." for name in self.secret_files]
        if self.longest_timeout_s > self.grace_s:
            grace, longest = format_duration(self.grace_s), format_duration(self.longest_timeout_s)
            notes.append(f"shutdown.grace ({grace}) is shorter than the longest timeout ({longest}):")
            notes.append("a handler that still runs when it is over is cancelled, and its message is handled again.")
        return notes

    @property
    def reachable(self) -> tuple[str, int]:
        """Where HTTP is answered if others have to ask: on every address, where nothing else is said."""
        host, port = self.http or self.listens or (ANY_HOST, DEFAULT_PORT)
        return (ANY_HOST, port) if is_loopback(host) else (host, port)


def deployment(pipelines: Sequence[Pipeline], specs: Sequence[CheckedSpec], http: tuple[str, int] | None) -> Deployment:
    """Return what is known of pipelines that were read, and of their files."""
    loaded = [one for one, _ in specs]
    broker = next((name for one in loaded if (name := _broker_variable(one))), BROKER_VARIABLE)
    variables = {variable.name: variable for variable in _variables(loaded)}
    # Whatever the file says: without the variable, a default such as `memory` would run in production, and be ready.
    variables[broker] = Variable(broker, is_secret=True, has_default=False)
    origins = {origin for one in loaded for several in one.interpolated.values() for origin in several}
    return Deployment(
        name=object_name([pipeline.name for pipeline in pipelines]),
        paths=tuple(_shown(one.path) for one in loaded),
        variables=tuple(variables[name] for name in sorted(variables)),
        broker_variable=broker,
        secret_files=tuple(sorted(name.removeprefix("file:") for name in origins if _is_file(name))),
        grace_s=max(pipeline.grace_s for pipeline in pipelines),
        longest_timeout_s=max((item.timeout_s or 0.0 for each in pipelines for item in each.subscribers), default=0.0),
        has_http=any(item.http_path is not None for each in pipelines for item in each.producers),
        listens=next((pipeline.http for pipeline in pipelines if pipeline.http), None),
        http=http,
    )


def object_name(names: Sequence[str]) -> str:
    """Return a name that Kubernetes takes for anything, made of those of the pipelines."""
    joined = re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")
    return (joined if joined[:1].isalpha() else f"runner-{joined}")[:_LONGEST_NAME].strip("-")


def format_address(host: str, port: int) -> str:
    """Write an address as `--http` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tree(value: Any) -> Any:
    """Return plain values as what `yaml_writer` writes."""
    if isinstance(value, dict):
        return {name: tree(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [tree(item) for item in value]
    return Leaf(value)


def document(value: dict[str, Any]) -> dict[str, Tree]:
    """Return a whole document as what `yaml_writer` writes."""
    return {name: tree(item) for name, item in value.items()}


def _variables(loaded: Sequence[PipelineFile]) -> Iterator[Variable]:
    secret: dict[str, bool] = {}
    for one in loaded:
        for path, origins in one.interpolated.items():
            for name in origins:
                if not _is_file(name):
                    secret[name] = secret.get(name, False) or _is_secret(path, name)
    required = {name for one in loaded for name in _required(one)}
    for name, is_secret in secret.items():
        yield Variable(name, is_secret, has_default=name not in required)


def _is_secret(path: KeyPath, name: str) -> bool:
    """Whether a variable is kept with the secrets: that of the broker's URL, and what `runner config` would mask."""
    is_url = path == ("broker",) or (path[0] == "broker" and path[1:2] and path[1] in _URLS)
    return bool(is_url) or is_from_secret([name]) or any(may_be_secret_name(str(key)) for key in path[1:])


def _required(loaded: PipelineFile) -> Iterator[str]:
    """Yield the variables that are somewhere referred to without a default."""
    if loaded.document is None:
        return
    for part in (loaded.document, *loaded.document.parts):
        yield from (name for name, default in _REFERENCE.findall(part.text) if not default)


def _broker_variable(loaded: PipelineFile) -> str:
    """Return the variable that is the whole of the broker's first URL, "" where there is none."""
    if loaded.document is None:
        return ""
    for path in (("broker",), ("broker", "url"), ("broker", "urls"), ("broker", "urls", 0)):
        node = loaded.document.node(path)
        if isinstance(node, ScalarNode):
            written = loaded.document.part(node.span).text[node.start : node.end]
            match = _ONE_VARIABLE.fullmatch(written.strip("\"'"))
            return match[1] if match else ""
    return ""


def _is_file(origin: str) -> bool:
    return origin.startswith("file:")


def _shown(path: Path) -> str:
    """Return a path as it is in the image, whose working folder is this one."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else Path(relative).as_posix()
