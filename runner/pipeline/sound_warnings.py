"""The warnings about a spec that stay true although its file has errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from runner.config.document import MappingNode
from runner.config.loader import PipelineFile
from runner.config.recovery import UNKNOWN
from runner.config.spec import PipelineSpec
from runner.config.target_spec import target_names
from runner.errors import Problem
from runner.pipeline.flow_checks import Peer
from runner.pipeline.lint import lint_warnings

_ROUTES = {
    "shared-queue": ("from",),
    "unread-queue": ("from", "dead_letter"),
    "unheard-event": ("from", "events", "bind", "exchange"),
    "unpublished-event": ("from", "events", "bind", "exchange", "to"),
    "cycle": ("from", "events", "bind", "exchange", "to"),
    "unanswered-call": ("from", "to", "reply"),
    "empty-key": ("exchange",),
    "shared-order": ("partitions", "partition_by"),
}
"""The warnings about the way of messages, and the keys on which each depends in all items."""

_SECTIONS = ("queues", "events", "exchanges", "producers", "subscribers")


def sound_warnings(
    loaded: PipelineFile, spec: PipelineSpec, together: Sequence[Peer], errors: Sequence[Problem]
) -> list[Problem]:
    """Return the warnings about a spec. Those that an error of the file may have caused are left out."""
    if not any(peer.spec is spec for peer in together):  # its slips were mended after the peers were listed
        together = [Peer(loaded.name, spec) if peer.name == loaded.name else peer for peer in together]
    wrong = [error for error in errors if error not in loaded.slips and (error.code != "unknown-key" or not error.fix)]
    items = [f"{section}.{name}" for section in _SECTIONS for name in getattr(spec, section)]
    is_whole = _has_all_items(loaded, spec) and not any(_may_hide_items(error, items) for error in wrong)
    unknown = {key for peer in together for key in _unknown_routes(peer.spec)}
    unknown |= {key for error in wrong for key in error.path.split(".")[1:]}
    return [
        warning
        for warning in lint_warnings(loaded, spec, together)
        if (warning.code not in _ROUTES or (is_whole and not unknown & {*_ROUTES[warning.code]}))
        and not any(_is_reason(error, warning, items) for error in wrong)
    ]


def _has_all_items(loaded: PipelineFile, spec: PipelineSpec) -> bool:
    """Whether each item of the file is in the spec, which has only what is valid."""
    for section in _SECTIONS:
        node = loaded.document.node((section,)) if loaded.document is not None else None
        if isinstance(node, MappingNode) and not {*node.nodes} <= {*getattr(spec, section)}:
            return False
    return True


def _may_hide_items(error: Problem, items: Sequence[str]) -> bool:
    """Whether a part of the file that may be an item, or say where messages go, is unknown because of an error."""
    is_unread = error.code.startswith("yaml-") or error.code in ("unknown-key", "duplicate-key", "name-clash")
    return error.path in ("", *_SECTIONS) or (is_unread and error.path in items)


def _unknown_routes(spec: PipelineSpec) -> Iterator[str]:
    if any(UNKNOWN in each.from_ for each in spec.subscribers.values()):
        yield "from"
    targets = [each.to for each in spec.subscribers.values()] + [each.to for each in spec.producers.values()]
    if any(UNKNOWN in target_names(each) for each in targets):
        yield "to"


def _is_reason(error: Problem, warning: Problem, items: Sequence[str]) -> bool:
    """Whether a warning speaks of the key of an error, so that the value that it has is one of its reasons."""
    places = [next((item for item in items if f"{each.path}.".startswith(f"{item}.")), "") for each in (error, warning)]
    is_other = places[0] != places[1] and places[0].partition(".")[0] == places[1].partition(".")[0]
    word = re.split(r"\.(?!\d)", re.sub(r"(\.\d+)+$", "", error.path))[-1]
    quoted = re.findall(r"`[^`]*`|\"[^\"]*\"", f"{warning.message} {warning.help}")
    text = " ".join([warning.path, *quoted])
    return bool(word) and not is_other and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None
