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
from runner.operations.plan import compute_plan, format_binding, state_of
from runner.operations.schema_diff import TEMPLATE, Field, compare, fields
from runner.pipeline import sys_path
from runner.pipeline.model import Destination
from runner.pipeline.project_modules import ProjectModules
from runner.pipeline.schemas import json_schemas, read_schema
from runner.pipeline.topology import PARTITIONS_SUFFIX, Topology, merge_topologies

BREAKING, SAFE = "breaking-change", "safe-change"

_ANYTHING = fields({}, {})
_TWO_STEPS = "add the new one, move the other programs, and remove the old one in a second step"
_EMPTY_FIRST = "let it run empty first, and change it in a second step"
_SECTIONS = ("queues", "events", "producers", "subscribers")
_REMOVED = {
    "queues": ("other programs", _EMPTY_FIRST),
    "events": ("other programs", _TWO_STEPS),
    "producers": ("", ""),
    "subscribers": ("the running system", "nothing reads its messages: let its queue run empty, then delete the queue"),
}
"""Whom it breaks if something is removed, and what to do."""

Part = tuple[str, str, str]
"""The section and the name of an item, and its pipeline; several pipelines may share a queue or an event."""


@dataclass(frozen=True)
class Version:
    """Pipelines of one version by their names, and what they have together. No handler is imported, only schemas."""

    files: Mapping[str, tuple[PipelineFile, PipelineSpec]]
    topology: Topology
    destinations: Mapping[str, Destination]
    payloads: Mapping[str, Mapping[str, Field]]

    def parts(self) -> dict[Part, tuple[str, Any]]:
        """Return all items, each with its pipeline and its spec."""
        return {
            (section, name, pipeline if section in ("producers", "subscribers") else ""): (pipeline, item)
            for pipeline, (_, spec) in self.files.items()
            for section in _SECTIONS
            for name, item in getattr(spec, section).items()
        }

    def problem(self, breaks: str, path: KeyPath, message: str, help_text: str, pipeline: str = "") -> Problem:
        """Return a difference at a path of this version; `breaks` names who is affected, "" if it breaks nothing."""
        owners = [each for each, spec in self.files.values() if path and path[1] in getattr(spec, str(path[0]), ())]
        loaded = (
            self.files[pipeline][0]
            if pipeline in self.files
            else [*owners, *(each for each, _ in self.files.values())][0]
        )
        if not breaks:
            return loaded.problem(SAFE, path, message, severity="notice", on="key")
        return loaded.problem(BREAKING, path, f"{message}: this breaks {breaks}", help_text, on="key")


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
        {name: item for each in pipelines for name, item in each.destinations.items()},
        {name: fields(schema, documents) for name, schema in schemas.items()},
    )


def differences(old: Version, new: Version) -> list[Problem]:
    """Return what is different, with its place in the new version."""
    return [*_topology(old, new), *_parts(old, new), *_payloads(old, new)]


def _topology(old: Version, new: Version) -> Iterator[Problem]:
    """Compare as `plan` does, as if the old version were on the broker."""
    for item in compute_plan(new.topology, state_of(old.topology, new.topology)).items:
        message = help_text = ""
        if item.action == "recreate":
            what = ", ".join(f"{each.key} is {each.spec}, not {each.live}" for each in item.differences)
            message = f'{item.kind} "{item.name}" must be recreated: {what}'
            help_text = "`runner plan` shows it, and `runner apply --recreate` does it; or give it another name"
        elif item.action == "extra" and item.live is not None:
            message = f"the binding {format_binding(item.live.binding)} is removed"
            help_text = "it stays on the broker until `runner apply --prune`; messages may still come, or be missed"
        if message and not item.name.endswith(PARTITIONS_SUFFIX):  # those are compared as options of their queue
            yield new.problem("the running system", _path(new, item.kind, item.name), message, help_text)


def _path(new: Version, kind: str, name: str) -> KeyPath:
    """Return the path of a queue or an exchange; that of its subscriber or queue if the pipeline names it itself."""
    for pipeline, (_, spec) in new.files.items():
        own = name.removesuffix(".dead").removeprefix(f"{pipeline}.")
        for section, key in ((f"{kind}s", name), ("queues", name), ("subscribers", own), ("queues", own)):
            if key in getattr(spec, section, {}):
                return (section, key)
    return ()


def _parts(old: Version, new: Version) -> Iterator[Problem]:
    """Compare what the files define. Limits, retries and schedules break nothing."""
    before, after = old.parts(), new.parts()
    paths = {getattr(item, "http", None) for _, item in after.values()}
    for part in dict.fromkeys([*before, *after]):
        section, name, _ = part
        (pipeline, was), (now_in, now) = before.get(part, ("", None)), after.get(part, ("", None))
        pipeline = now_in or pipeline
        path, shown = (section, name), f'{section.removesuffix("s")} "{name}"'
        if pipeline not in new.files:
            shown += f' of the pipeline "{pipeline}"'
        if (http := getattr(was, "http", None)) not in paths:
            yield new.problem("HTTP clients", path, f"the path {http} is removed", _TWO_STEPS, pipeline)
        if now is None:
            breaks, help_text = _REMOVED[section]
            yield new.problem(breaks, path, f"{shown} is removed", help_text, pipeline)
        elif was is None:
            yield new.problem("", path, f"{shown} is new", "", pipeline)
        elif section == "events":
            here, there = new.destinations[name].address, old.destinations[name].address
            if here != there:
                yield new.problem("other programs", path, f"{shown} has the address {here}, not {there}", _TWO_STEPS)
        elif section == "queues":
            for key in ("partitions", "partition_by"):
                here, there = getattr(now, key), getattr(was, key)
                if here != there:
                    message = f"{shown} has {key.replace('_', ' ')} {here or 'none'}, not {there or 'none'}"
                    yield new.problem("the running system", path, message, _EMPTY_FIRST)
        else:
            for queue in getattr(was, "from_", ()):
                if ("queues", queue, "") in before and queue not in now.from_:
                    message = f'{shown} no longer reads queue "{queue}"'
                    yield new.problem("the running system", (*path, "from"), message, _EMPTY_FIRST, pipeline)
            if changed := [key for key in type(was).model_fields if getattr(was, key) != getattr(now, key)]:
                keys = ", ".join(key.removesuffix("_") for key in changed)
                yield new.problem("", path, f"{shown} has other options: {keys}", "", pipeline)


def _payloads(old: Version, new: Version) -> Iterator[Problem]:
    """Compare schemas. What waits in a queue was published by the old version, so narrowing breaks always."""
    read = {name for _, spec in new.files.values() for item in spec.subscribers.values() for name in item.from_}
    help_texts = {
        "publishers": "messages that wait, and programs that publish the old form, would be refused: allow both first",
        "consumers": "programs that read it may need the old form: publish both at first, or use another name",
    }
    for name in dict.fromkeys([*new.payloads, *old.payloads]):
        if name not in old.destinations or name not in new.destinations:
            continue
        is_event = new.destinations[name].is_event
        for side, text in compare(old.payloads.get(name, _ANYTHING), new.payloads.get(name, _ANYTHING)):
            breaks = "" if side == "consumers" and name in read and not is_event else side
            path = ("events" if is_event else "queues", name, "schema")
            yield new.problem(breaks, path, f'payload of "{name}": {text}', help_texts.get(side, ""))
