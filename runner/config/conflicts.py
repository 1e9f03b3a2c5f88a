"""Input: options that are right one by one and wrong together, into errors at the options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from runner.config.messages import spec_error


class Conflict(NamedTuple):
    """An option that cannot stand with the others: its keys below the map, the words, and the code."""

    path: tuple[str | int, ...]
    message: str
    help: str
    code: str = "conflicting-options"
    across: bool = True
    """Not to be judged on `defaults` alone, which are only a part of the map."""


def raise_conflicts(conflicts: Iterable[Conflict]) -> None:
    """Raise all conflicts of one map at once; pydantic puts the place in front. None: do nothing."""
    details = [_detail(conflict) for conflict in conflicts]
    if details:
        raise ValidationError.from_exception_data("conflicts", details)


def _detail(conflict: Conflict) -> InitErrorDetails:
    error: Any = spec_error(conflict.code, conflict.message, conflict.help, across=conflict.across)
    return InitErrorDetails(type=error, loc=conflict.path, input=None)
