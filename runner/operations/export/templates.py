"""Reads the YAML templates beside the code, and fills in their words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from runner.config.document import plain_data
from runner.config.yaml_parser import parse_yaml
from runner.tables import filled


def fill_template(name: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of a template. `"{word}"` alone is replaced by any value, and within a text by a text.

    A key `name if word` is called `name`, and is left out where the word is not true.
    """
    text = files("runner.operations.export").joinpath(name).read_text("utf-8")
    data: dict[str, Any] = _filled(plain_data(parse_yaml(text)[0].root), words)
    return data


def _filled(part: Any, words: Mapping[str, Any]) -> Any:
    if isinstance(part, dict):
        keys = [(*key.partition(" if "), value) for key, value in part.items()]
        return {key: _filled(value, words) for key, _, word, value in keys if not word or words[word]}
    if isinstance(part, list):
        return [_filled(each, words) for each in part]
    if not isinstance(part, str):
        return part
    alone = re.fullmatch(r"\{(\w+)\}", part)
    return words[alone[1]] if alone else filled(part, words)
