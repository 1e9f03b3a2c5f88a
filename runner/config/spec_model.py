"""The base of the models of the language, and the errors that their validators raise."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails

from runner.config.messages import spec_error


class SpecModel(BaseModel):
    """A map of the file. Unknown keys are errors; a model does not change after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    reserved: ClassVar[frozenset[str]] = frozenset()
    """Keys that no pipeline may use, kept for later versions of the language."""

    one_of: ClassVar[tuple[str, ...]] = ()
    """Keys of which a map needs exactly one."""

    short_form: ClassVar[str] = ""
    """The key whose value may stand in place of the whole map, "" if there is none."""

    def conflicts(self) -> Iterable[Conflict]:
        """Return the options of this map that exclude each other. All are reported at once."""
        return ()

    @classmethod
    def model_rebuild(cls, **options: Any) -> bool | None:
        """Build the validator without plugins of pydantic: it would read what is known of each installed package."""
        name = "PYDANTIC_DISABLE_PLUGINS"
        given = os.environ.get(name)
        os.environ[name] = "__all__"
        try:
            return super().model_rebuild(**options)
        finally:
            del os.environ[name]
            os.environ |= {name: given} if given is not None else {}

    @model_validator(mode="after")
    def _raise_conflicts(self) -> Self:
        raise_conflicts(self.conflicts())
        return self


def field_keys(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Return the keys that a field has in the file."""
    if isinstance(field.validation_alias, AliasChoices):
        return tuple(str(choice) for choice in field.validation_alias.choices)
    return (field.alias or name,)


def model_keys(model: type[SpecModel]) -> list[str]:
    """Return the keys that the map of a model can have."""
    return [key for name, field in model.model_fields.items() for key in field_keys(name, field)]


class Conflict(NamedTuple):
    """Options that exclude each other: the path of one of them below the map, the message, the help and the code."""

    path: tuple[str | int, ...]
    message: str
    help: str
    code: str = "conflicting-options"
    whole_map: bool = True
    """Whether only the whole map shows it: then it is not reported for `defaults` alone."""


def raise_conflicts(conflicts: Iterable[Conflict]) -> None:
    """Raise all conflicts of one map at once, if there are any. pydantic puts the path of the map before theirs."""
    details = [_detail(conflict) for conflict in conflicts]
    if details:
        raise ValidationError.from_exception_data("conflicts", details)


def _detail(conflict: Conflict) -> InitErrorDetails:
    error: Any = spec_error(conflict.code, conflict.message, conflict.help, whole_map=conflict.whole_map)
    return InitErrorDetails(type=error, loc=conflict.path, input=None)
