"""Input: the bytes of a YAML file into what it seems to be, by the keys at its top level: nothing is parsed.

A folder has other YAML files, too. One that its author means to be a pipeline must not be passed over for a slip.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from difflib import get_close_matches
from enum import Enum, auto
from functools import cache

_KEY = re.compile(r"^(\{?[ ]*)([\"']?)([A-Za-z_][\w-]*)\2[ ]*:(?:[ \t]+|$)(.*)$", re.MULTILINE)
_ONE = re.compile(r"[\"']?1[\"']?[ ]*(?:[#,}].*)?$")
_SECTIONS = ("queues", "events", "exchanges", "producers", "subscribers")
_NEAR = 0.85


class FileKind(Enum):
    """What a YAML file in a folder is taken for."""

    PIPELINE = auto()
    PART = auto()
    """It has a pipeline's keys and no version: a file that another one includes, or a pipeline with a slip."""
    OTHER = auto()


def detect_file_kind(content: bytes) -> FileKind:
    """Return what a file seems to be."""
    found = list(_KEY.finditer(_text(content)))
    keys = {match[3]: match[4].strip() for match in found if match[1] == found[0][1]}  # indented like the first one
    sections = [key for key in keys if key in _SECTIONS]
    near = [key for key in keys if key not in _SECTIONS and _is_near(key, _SECTIONS)]
    is_ours = bool(sections) or len(near) > 1
    if "version" in keys:
        is_first = _ONE.match(keys["version"]) is not None
        return FileKind.PIPELINE if is_ours or is_first or keys.keys() <= _known_keys() else FileKind.OTHER
    version = next((key for key in keys if _is_near(key, ["version"])), None)
    is_first = version is not None and _ONE.match(keys[version]) is not None
    return FileKind.PART if is_ours or is_first else FileKind.OTHER


def _text(content: bytes) -> str:
    """Return a text to look for keys in; the file is not read from it."""
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf_16 else "utf-8-sig", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_near(key: str, words: Iterable[str]) -> bool:
    """Whether a key is one of these but for a letter or two; `apiVersion` is not `version`."""
    return bool(get_close_matches(key.lower(), words, n=1, cutoff=_NEAR))


@cache
def _known_keys() -> frozenset[str]:
    from runner.config.spec import PipelineSpec
    from runner.config.spec_model import model_keys

    return frozenset(model_keys(PipelineSpec))
