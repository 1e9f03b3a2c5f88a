"""What a container needs to run pipelines: the names of variables, the address of probes, timeouts."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.config.document import KeyPath, ScalarNode, text_of, walk_nodes
from runner.config.loader import PipelineFile
from runner.config.overlays import Overlay, parse_setting
from runner.errors import InvalidUsage
from runner.operations.masking import is_from_secret, is_secret_name, may_be_secret_name
from runner.operations.pipeline_files import CheckedSpec
from runner.pipeline.model import Pipeline
from runner.redaction import escape_controls, mask_passwords
from runner.units import format_duration, is_loopback

KILL_MARGIN_S = 10
"""Time between the end of the grace period and SIGKILL: to settle messages, close connections and flush the log."""

DEFAULT_PORT = 8080
ANY_HOST = "0.0.0.0"
FOLDER = "/var/lib/runner"
"""Where a volume for the broker's file is mounted."""
BROKER_VARIABLE = "RUNNER_BROKER"

_URLS = frozenset({"url", "urls"})
_ONE_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::[-?][^}]*)?\}")
_REFERENCE = re.compile(r"(?<!\$)(?:\$\$)*\$\{([A-Za-z_]\w*)(:-)?")
_LONGEST_NAME = 50
"""Kubernetes allows 63 characters; suffixes such as `-secret` are appended."""


class SecretInCommand(InvalidUsage):
    """The value of a `--set` is a secret, which the exported command would show."""


@dataclass(frozen=True, slots=True)
class Variable:
    """The name of a variable that pipelines refer to, without its value. `has_default`: it may be unset."""

    name: str
    is_secret: bool
    has_default: bool


@dataclass(frozen=True, slots=True)
class Deployment:
    """Pipelines that run in one container. `broker_variable` holds the URL of RabbitMQ."""

    name: str
    arguments: tuple[str, ...]
    """The arguments of `runner up`: the paths, and the overlays."""
    variables: tuple[Variable, ...]
    broker_variable: str
    secret_files: tuple[str, ...]
    grace_s: float
    longest_timeout_s: float
    """The longest timeout of a subscriber; 0 if none has one."""
    connect_timeout_s: float
    """How long the runner tries to connect at its start."""
    has_http: bool
    """Whether a producer has `http`: then other hosts must reach the port."""
    listens: tuple[str, int] | None
    """The address of `telemetry.http` in the pipelines."""
    http: tuple[str, int] | None
    """The address of `--http`."""
    file: str = ""
    """The name of the broker's file, if it is in a file."""

    def up_arguments(self, folder: str) -> tuple[str, ...]:
        """Return the arguments of `runner up`, with the broker's file in a folder that outlives the container."""
        return (*self.arguments, "--broker", f"file:{folder}/{self.file}") if self.file else self.arguments

    def file_notes(self, folder: str) -> list[str]:
        """Return comments on the broker's file; none on RabbitMQ."""
        where = f"Messages are in {folder}/{self.file}, and one process owns it: never start a second one on it."
        return [where, f"`runner status` and others read it with --broker file:{folder}/{self.file}"] * bool(self.file)

    @property
    def stop_timeout_s(self) -> int:
        """Seconds between SIGTERM and SIGKILL: a handler may have started just before SIGTERM."""
        return math.ceil(self.grace_s + self.longest_timeout_s) + KILL_MARGIN_S

    @property
    def notes(self) -> list[str]:
        """Comments for the head of every deployment file."""
        notes = [f"The pipeline reads the file {escape_controls(name)}: mount it." for name in self.secret_files]
        if self.longest_timeout_s > self.grace_s:
            grace, longest = format_duration(self.grace_s), format_duration(self.longest_timeout_s)
            notes.append(f"shutdown.grace ({grace}) is shorter than the longest timeout ({longest}):")
            notes.append("a handler that still runs when it ends is cancelled, and its message is handled again.")
        return notes

    @property
    def reachable(self) -> tuple[str, int]:
        """The address at which other hosts can reach the HTTP server; by default all interfaces."""
        host, port = self.http or self.listens or (ANY_HOST, DEFAULT_PORT)
        return (ANY_HOST, port) if is_loopback(host) else (host, port)


def deployment(
    pipelines: Sequence[Pipeline],
    specs: Sequence[CheckedSpec],
    http: tuple[str, int] | None,
    overlays: Sequence[Overlay] = (),
) -> Deployment:
    """Return the deployment of pipelines, from their resolved form and their files. Raises SecretInCommand."""
    loaded = [one for one, _ in specs]
    broker = next((name for one in loaded if (name := _broker_variable(one))), BROKER_VARIABLE)
    variables = {variable.name: variable for variable in _variables(loaded)}
    # Required whatever the file says: with a default such as `memory`, production would run on the in-process broker.
    file = pipelines[0].broker.file
    if file is None:
        variables[broker] = Variable(broker, is_secret=True, has_default=False)
    origins = {origin for one in loaded for several in one.interpolated.values() for origin in several}
    return Deployment(
        name=object_name([pipeline.name for pipeline in pipelines]),
        arguments=(*(_shown(one.path) for one in loaded), *_overlay_arguments(overlays)),
        variables=tuple(variables[name] for name in sorted(variables)),
        broker_variable=broker if file is None else "",
        secret_files=tuple(sorted(name.removeprefix("file:") for name in origins if _is_file(name))),
        grace_s=max(pipeline.grace_s for pipeline in pipelines),
        longest_timeout_s=max((item.timeout_s or 0.0 for each in pipelines for item in each.subscribers), default=0.0),
        connect_timeout_s=max(spec.broker.connect_timeout for _, spec in specs),
        has_http=any(item.http_path is not None for each in pipelines for item in each.producers),
        listens=next((pipeline.http for pipeline in pipelines if pipeline.http), None),
        http=http,
        file=file.name if file is not None else "",
    )


def object_name(names: Sequence[str]) -> str:
    """Return a valid name of a Kubernetes object, made of the names of the pipelines."""
    joined = re.sub(r"[^a-z0-9]+", "-", "-".join(names).lower()).strip("-")
    return (joined if joined[:1].isalpha() else f"runner-{joined}")[:_LONGEST_NAME].strip("-")


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
    """Whether a variable is a secret: the broker's URL, and what `runner config` masks."""
    is_url = path == ("broker",) or (path[0] == "broker" and path[1:2] and path[1] in _URLS)
    return bool(is_url) or is_from_secret([name]) or any(may_be_secret_name(str(key)) for key in path[1:])


def _required(loaded: PipelineFile) -> Iterator[str]:
    """Yield the variables that are used without a default somewhere."""
    if loaded.document is None:
        return
    for part in (loaded.document, *loaded.document.parts):
        yield from (name for name, default in _REFERENCE.findall(part.text) if not default)


def _broker_variable(loaded: PipelineFile) -> str:
    """Return the variable that holds the broker's first URL as a whole; empty if there is none."""
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


def _overlay_arguments(overlays: Sequence[Overlay]) -> Iterator[str]:
    """Yield the options of `runner up` for overlays. Raises SecretInCommand."""
    for overlay in overlays:
        if isinstance(overlay, Path):
            yield from ("--overlay", _shown(overlay))
            continue
        for path, node in walk_nodes(parse_setting(overlay.text)[0].root):
            text = text_of(node)
            has_secret = mask_passwords(text) != text or any(is_secret_name(str(key)) for key in path)
            if text and "${" not in text and has_secret:
                key = overlay.text.partition("=")[0]
                hint = f"write a variable in its place, as in --set '{key}=${{NAME}}'"
                raise SecretInCommand(f"--set {key} has a secret, which would stand in the exported command", hint)
        yield from ("--set", overlay.text)


def _shown(path: Path) -> str:
    """Return a path relative to the current folder, which is the working folder of the image."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else Path(relative).as_posix()
