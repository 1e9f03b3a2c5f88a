"""Tells pipelines from other YAML files in a folder, by the keys at the top level. Nothing is parsed.

A file that is meant to be a pipeline must not be skipped because of a typo.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from enum import Enum, auto
from functools import cache

_KEY = re.compile(r"^(\{?[ ]*)([\"']?)([A-Za-z_][\w-]*)\2[ ]*:(?:[ \t]+|$)(.*)$", re.MULTILINE)
_ONE = re.compile(r"[\"']?1[\"']?[ ]*(?:[#,}].*)?$")
_SECTIONS = ("queues", "events", "exchanges", "producers", "subscribers")
_MIN_SIMILARITY = 0.85


class FileKind(Enum):
    """The kind of a YAML file."""

    PIPELINE = auto()
    PART = auto()
    """A file with the keys of a pipeline and no version: another file includes it, or its version is misspelt."""
    OTHER = auto()


def detect_file_kind(content: bytes) -> FileKind:
    """Return the kind that a file seems to have."""
    found = list(_KEY.finditer(_text(content)))
    keys = {match[3]: match[4].strip() for match in found if match[1] == found[0][1]}  # indented like the first one
    sections = [key for key in keys if key in _SECTIONS]
    near = [key for key in keys if key not in _SECTIONS and _is_near(key, _SECTIONS)]
    is_ours = bool(sections) or len(near) > 1
    if "version" in keys:
        is_first = _ONE.match(keys["version"]) is not None
        return FileKind.PIPELINE if is_ours or is_first or keys.keys() <= _known_keys() else FileKind.OTHER
    if "pipeline" in keys:
        return FileKind.OTHER  # an overlay, which says what it is for
    version = next((key for key in keys if _is_near(key, ["version"])), None)
    is_first = version is not None and _ONE.match(keys[version]) is not None
    return FileKind.PART if is_ours or is_first else FileKind.OTHER


def _text(content: bytes) -> str:
    """Return a text for the search of keys. Undecodable bytes do not matter."""
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf_16 else "utf-8-sig", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_near(key: str, words: Iterable[str]) -> bool:
    """Whether a key differs from one of these words by one or two letters. `apiVersion` is not near `version`."""
    from difflib import get_close_matches

    return bool(get_close_matches(key.lower(), words, n=1, cutoff=_MIN_SIMILARITY))


@cache
def _known_keys() -> frozenset[str]:
    from runner.config.spec import PipelineSpec
    from runner.config.spec_model import model_keys

    return frozenset(model_keys(PipelineSpec))
