"""Compares two versions of pipelines: what a running system, and other programs, would notice. Pure but for reading."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config.document import KeyPath
from runner.config.loader import PipelineFile
from runner.config.overlays import Overlay
from runner.config.spec import PipelineSpec
from runner.errors import PipelineInvalid, Problem
from runner.operations.pipeline_files import resolve_all
from runner.operations.plan import compute_plan, format_binding
from runner.operations.schema_diff import TEMPLATE, Field, compare, fields
from runner.pipeline import sys_path
from runner.pipeline.model import Destination
from runner.pipeline.project_modules import ProjectModules
from runner.pipeline.schemas import json_schemas, read_schema
from runner.pipeline.topology import Exchange, Topology, merge_topologies
from runner.transports.broker_state import BrokerState, Difference, ExistingItem, LiveBinding

BREAKING, SAFE = "breaking-change", "safe-change"

_ANYTHING = fields({}, {})
_EMPTY_FIRST = "let it run empty, and remove it in a second step"
_TWO_STEPS = "add the new one, move the other programs, and remove the old one in a second step"


@dataclass(frozen=True)
class Version:
    """Pipelines of one version by their names, and what they have together. No handler is imported, only schemas."""

    files: Mapping[str, tuple[PipelineFile, PipelineSpec]]
    topology: Topology
    destinations: Mapping[str, tuple[str, Destination]]
    payloads: Mapping[str, Mapping[str, Field]]

    def problem(self, breaks: str, pipeline: str, path: KeyPath, message: str, help_text: str = "") -> Problem:
        """Return a difference at a place of this version; `breaks` names who is affected, "" for nobody."""
        loaded, _ = self.files.get(pipeline) or next(iter(self.files.values()))
        message = f"{message}: this breaks {breaks}" if breaks else message
        code = BREAKING if breaks else SAFE
        return loaded.problem(code, path, message, help_text, severity="error" if breaks else "notice", on="key")

    def parts(self) -> dict[tuple[str, str, str], Any]:
        """Return the specs of producers and subscribers, by pipeline, section and name."""
        return {
            (pipeline, section, name): item
            for pipeline, (_, spec) in self.files.items()
            for section in ("producers", "subscribers")
            for name, item in getattr(spec, section).items()
        }


def read_version(path: Path, environ: Mapping[str, str], overlays: Sequence[Overlay], folder: Path) -> Version:
    """Read pipelines as from a folder. The modules of their schemas do not stay. Raises PipelineInvalid."""
    path = path.absolute()
    with contextlib.chdir(folder):
        modules, folders = ProjectModules(), sys_path.added()
        try:
            return _read(path, environ, overlays)
        finally:
            modules.replace({})
            sys_path.withdraw([each for each in sys_path.added() if each not in folders])


def _read(path: Path, environ: Mapping[str, str], overlays: Sequence[Overlay]) -> Version:
    found = list(resolve_all([path], environ, overlays, handlers=False))
    pipelines = [resolved.pipeline for _, resolved in found if resolved.pipeline is not None]
    if len(pipelines) < len(found):
        raise PipelineInvalid([problem for _, resolved in found for problem in resolved.problems])
    types = {name: read_schema(schema)[0] for each in pipelines for name, schema in each.schemas.items()}
    schemas, documents = json_schemas(types, TEMPLATE)
    return Version(
        {each.name: (loaded, loaded.spec) for each, (loaded, _) in zip(pipelines, found, strict=True) if loaded.spec},
        merge_topologies(each.topology for each in pipelines),
        {name: (each.name, item) for each in pipelines for name, item in each.destinations.items()},
        {name: fields(schema, documents) for name, schema in schemas.items()},
    )


def differences(old: Version, new: Version) -> list[Problem]:
    """Return what is different, with its place in the new version."""
    return [*_topology(old, new), *_destinations(old, new), *_parts(old, new), *_payloads(old, new)]


def _topology(old: Version, new: Version) -> Iterator[Problem]:
    """Compare as `plan` does, as if the old version were on the broker."""
    wanted = {exchange.name: exchange for exchange in new.topology.exchanges}
    exchanges = {
        each.name: ExistingItem(tuple(_traits(each, wanted.get(each.name)))) for each in old.topology.exchanges
    }
    queues = {
        each.name: ExistingItem(
            remark="compared", arguments={"durable": each.durable, "auto_delete": each.auto_delete, **each.arguments}
        )
        for each in old.topology.queues
    }
    state = BrokerState(exchanges, queues, tuple(map(LiveBinding, old.topology.bindings)))
    for item in compute_plan(new.topology, state).items:
        message = help_text = ""
        if item.action == "recreate":
            what = ", ".join(f"{each.key} is {each.spec}, not {each.live}" for each in item.differences)
            message = f'{item.kind} "{item.name}" must be recreated: {what}'
            help_text = "`runner plan` shows it, and `runner apply --recreate` does it; or give it another name"
        elif item.action == "extra" and item.live is not None:
            message = f"the binding {format_binding(item.live.binding)} is removed"
            help_text = "it stays on the broker until `runner apply --prune`; messages may still come, or be missed"
        if message:
            yield new.problem("the running system", *_place(new, item.kind, item.name), message, help_text)


def _traits(old: Exchange, new: Exchange | None) -> Iterator[Difference]:
    for key in ("type", "durable", "arguments"):
        was, now = getattr(old, key), getattr(new or old, key)
        if was != now:
            yield Difference("exchange", old.name, key, str(now), str(was))


def _place(new: Version, kind: str, name: str) -> tuple[str, KeyPath]:
    """Return the pipeline and the path of a queue or an exchange."""
    for pipeline, (_, spec) in new.files.items():
        own = name.removesuffix(".dead").removeprefix(f"{pipeline}.")
        for section, key in ((f"{kind}s", name), ("queues", name), ("subscribers", own), ("queues", own)):
            if key in getattr(spec, section, {}):
                return pipeline, (section, key)
    return "", ()


def _destinations(old: Version, new: Version) -> Iterator[Problem]:
    for name, (pipeline, before) in old.destinations.items():
        kind = "event" if before.is_event else "queue"
        _, after = new.destinations.get(name, ("", None))
        path = (f"{kind}s", name)
        if after is None or after.is_event != before.is_event:
            help_text = _TWO_STEPS if before.is_event else _EMPTY_FIRST
            yield new.problem("other programs", pipeline, path, f'{kind} "{name}" is removed', help_text)
        elif after.address != before.address:
            message = f'event "{name}" has the address {after.address}, not {before.address}'
            yield new.problem("other programs", pipeline, path, message, _TWO_STEPS)
    for name, (pipeline, after) in new.destinations.items():
        if name not in old.destinations:
            kind = "event" if after.is_event else "queue"
            yield new.problem("", pipeline, (f"{kind}s", name), f'{kind} "{name}" is new')


def _parts(old: Version, new: Version) -> Iterator[Problem]:
    """Compare producers and subscribers. Limits, retries and schedules break nothing."""
    before, after = old.parts(), new.parts()
    paths = {item.http for item in after.values() if getattr(item, "http", None)}
    for (pipeline, section, name), item in before.items():
        now, kind = after.get((pipeline, section, name)), section.removesuffix("s")
        http = getattr(item, "http", None)
        if http and http not in paths:
            yield new.problem("HTTP clients", pipeline, (section, name), f"the path {http} is removed", _TWO_STEPS)
        if now is None:
            breaks = "the running system" if kind == "subscriber" else ""
            help_text = "nothing reads its messages: let its queue run empty first, then delete the queue"
            yield new.problem(
                breaks, pipeline, (section, name), f'{kind} "{name}" is removed', help_text if breaks else ""
            )
            continue
        lost = [
            each
            for each in getattr(item, "from_", ())
            if each in old.files[pipeline][1].queues and each not in now.from_
        ]
        for queue in lost:
            message = f'subscriber "{name}" no longer reads queue "{queue}"'
            yield new.problem("the running system", pipeline, (section, name, "from"), message, _EMPTY_FIRST)
        changed = [key for key in type(item).model_fields if getattr(item, key) != getattr(now, key)]
        if changed:
            keys = ", ".join(key.removesuffix("_") for key in changed)
            yield new.problem("", pipeline, (section, name), f'{kind} "{name}" has other options: {keys}')
    for pipeline, section, name in [each for each in after if each not in before]:
        yield new.problem("", pipeline, (section, name), f'{section.removesuffix("s")} "{name}" is new')


def _payloads(old: Version, new: Version) -> Iterator[Problem]:
    """Compare schemas. What waits in a queue was published by the old version, so narrowing breaks always."""
    read = {name for _, spec in new.files.values() for item in spec.subscribers.values() for name in item.from_}
    for name in dict.fromkeys([*new.payloads, *old.payloads]):
        if name not in old.destinations or name not in new.destinations:
            continue
        pipeline, destination = new.destinations[name]
        path = ("events" if destination.is_event else "queues", name, "schema")
        for side, text in compare(old.payloads.get(name, _ANYTHING), new.payloads.get(name, _ANYTHING)):
            is_own = side == "consumers" and not destination.is_event and name in read
            help_text = ""
            if side == "publishers":
                help_text = (
                    "messages that wait, and programs that publish the old form, would be refused: allow both at first"
                )
            elif side and not is_own:
                help_text = "programs that read it may need the old form: publish both at first, or use another name"
            yield new.problem("" if is_own else side, pipeline, path, f'payload of "{name}": {text}', help_text)
