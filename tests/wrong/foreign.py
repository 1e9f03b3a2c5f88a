"""Phrases that no problem may have: they are somebody else's English, and no author of a pipeline knows them."""

from __future__ import annotations

FOREIGN = (
    # pydantic
    *("Input should", "valid integer", "valid string", "valid boolean", "valid number", "valid dictionary"),
    *(
        "Field required",
        "Extra inputs",
        "not permitted",
        "Value error",
        "unable to parse",
        "instance of",
        "pydantic-core",
    ),
    *("arbitrary_types_allowed", "validation error", "errors.pydantic.dev", "should match", "should be"),
    # PyYAML
    *("mapping values are not allowed", "while scanning", "while parsing", "expected <", "could not find expected"),
    *("did not find expected", "found character", "found undefined", "block mapping", "flow sequence", "block end"),
    *("found duplicate anchor", "control characters are not allowed", "unacceptable character"),
    # Python
    *("Traceback", "object has no attribute", "unexpected keyword argument", "positional argument", "NoneType"),
    *(
        "not subscriptable",
        "codec can't decode",
        "[Errno",
        "<class",
        "<function",
        "object at 0x",
        "KeyError",
        "TypeError",
    ),
)


def foreign_words(text: str) -> set[str]:
    """Return the phrases that a text has."""
    lowered = text.lower()
    return {phrase for phrase in FOREIGN if phrase.lower() in lowered}
