"""A path into a payload is refused only where no payload of the type can have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, NotRequired, TypeVar

import pydantic
import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    RootModel,
    computed_field,
    field_validator,
    model_serializer,
    model_validator,
)
from typing_extensions import TypedDict

from runner.pipeline.schema_checks import first_unknown_key, path_mismatches
from runner.pipeline.schemas import read_schema

T = TypeVar("T")


class Customer(BaseModel):
    id: int
    tags: dict[str, str] = {}


class Order(BaseModel):
    id: int
    customer: Customer | None = None
    lines: list[Customer] = []
    free: Any = None
    limited: Annotated[int, Field(gt=3)] = 5


class Bill(BaseModel):
    number: Literal["a", "b"]
    customer: Mapping[str, int]


class Aliased(BaseModel):
    customer_id: int = Field(alias="customerId")
    old: int = Field(validation_alias=AliasChoices("former", AliasPath("deep", "down")))
    sent: int = Field(serialization_alias="out")


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True, alias_generator=str.upper)
    id: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: int


class Flattened(BaseModel):
    id: int

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        return value


class Reshaped(BaseModel):
    id: int

    @model_serializer
    def _reshape(self) -> dict[str, Any]:
        return {"x": self.id}


class Touched(BaseModel):
    customer: Customer
    parsed: Annotated[Customer, BeforeValidator(lambda value: value)]
    text: Json[Customer]

    @field_validator("customer", mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        return value

    @computed_field
    def total(self) -> int:
        return 1


class Checked(BaseModel):
    customer: Customer

    @field_validator("customer")
    @classmethod
    def _check(cls, value: Customer) -> Customer:
        return value

    @model_validator(mode="after")
    def _check_all(self) -> Checked:
        return self


class Made:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(dict)


class Odd(BaseModel):
    id: int

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(source)


class Page(BaseModel, Generic[T]):
    item: T


class Tree(BaseModel):
    id: int
    parent: Tree | None = None


class Wrapped(RootModel[Order]):
    pass


@dataclasses.dataclass
class Plain:
    id: int
    customer: Customer
    renamed: Annotated[int, Field(alias="other")] = 1


@pydantic.dataclasses.dataclass
class Pydantic:
    id: int
    customer: Customer


class Typed(TypedDict):
    id: int
    customer: NotRequired[Customer]


@pytest.mark.parametrize(
    ("kind", "path", "part"),
    [
        (Order, "costumer.id", "costumer"),
        (Order, "customer.name", "name"),
        (Order, "id.value", "value"),
        (Order, "lines.id", "id"),
        (Order, "limited.x", "x"),
        (Aliased, "customer_id", "customer_id"),
        (Checked, "customer.name", "name"),
        (Page[Order], "item.name", "name"),
        (Tree, "parent.parent.name", "name"),
        (Wrapped, "name", "name"),
        (Order | Customer, "name", "name"),
        (Annotated[Order, Field(description="x")], "name", "name"),
        (Plain, "name", "name"),
        (Plain, "customer.name", "name"),
        (Pydantic, "customer.name", "name"),
        (Typed, "name", "name"),
        (Typed, "customer.name", "name"),
        (Odd, "anything", "anything"),
        (list[Order], "id", "id"),
        (int, "id", "id"),
    ],
)
def test_what_no_payload_has_is_found(kind: Any, path: str, part: str) -> None:
    """The problem names the first part of a path that does not exist."""
    unknown = first_unknown_key(path, [kind])
    assert unknown is not None
    assert unknown.part == part


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (Order, "id"),
        (Order, "customer.id"),
        (Order, "customer.tags.anything"),
        (Order, "free.anything"),
        (Bill, "customer.anything"),
        (Aliased, "customerId"),
        (Aliased, "former"),
        (Aliased, "deep.down"),
        (Aliased, "out"),
        (Aliased, "sent"),
        (ByName, "id"),
        (ByName, "ID"),
        (Open, "anything"),
        (Flattened, "anything"),
        (Reshaped, "anything"),
        (Touched, "customer.anything"),
        (Touched, "parsed.anything"),
        (Touched, "text.anything"),
        (Touched, "total"),
        (Made, "anything"),
        (Tree, "parent.parent.id"),
        (Wrapped, "customer.id"),
        (Order | Bill, "number"),
        (Order | dict, "anything"),
        (Plain, "customer.id"),
        (Plain, "other"),
        (Pydantic, "customer.id"),
        (Typed, "customer.id"),
        (dict[str, int], "anything"),
        (Any, "anything"),
    ],
)
def test_what_a_payload_may_have_is_right(kind: Any, path: str) -> None:
    """Also where only running the model's own functions would tell."""
    assert first_unknown_key(path, [kind]) is None


def test_every_class_here_is_a_schema() -> None:
    """So the cases are what authors can write."""
    for kind in (Order, Bill, Aliased, ByName, Touched, Tree, Wrapped, Plain, Pydantic, Typed):
        read_schema(f"{__name__}:{kind.__name__}")


def test_one_of_several_types_is_enough() -> None:
    """The messages of the others are one group, which may be meant."""
    assert first_unknown_key("number", [Order, Bill]) is None
    assert first_unknown_key("customer.id", [Order, Customer]) is None
    ((message, help_text),) = path_mismatches("customr", [Order, Bill])
    assert message == 'Order | Bill has no "customr": all messages would be one group'
    assert help_text == 'did you mean "customer"?'
    assert list(path_mismatches("x", [])) == []
