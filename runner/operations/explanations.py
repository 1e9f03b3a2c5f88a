"""The explanations of error codes, parsed from `errors.md`, which is also a page of the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

_ENTRY = re.compile(r"^## (?P<code>\S+)\n(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_EXAMPLES = re.compile(r"Wrong:\n\n```yaml\n(?P<wrong>.*?)```\n\nRight:\n\n```yaml\n(?P<right>.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation of a code. `wrong` and `right` are complete pipelines; empty if one pipeline cannot show it."""

    code: str
    text: str
    wrong: str = ""
    right: str = ""


def explanations() -> dict[str, Explanation]:
    """Return all explanations by code."""
    document = files("runner.operations").joinpath("errors.md").read_text("utf-8")
    return {match["code"]: _entry(match["code"], match["text"]) for match in _ENTRY.finditer(document)}


def _entry(code: str, text: str) -> Explanation:
    examples = _EXAMPLES.search(text)
    if examples is None:
        return Explanation(code, text.strip())
    return Explanation(code, text[: examples.start()].strip(), examples["wrong"], examples["right"])
