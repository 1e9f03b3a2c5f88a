"""Handlers that tests of the resolver name."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

NotASchema = 5


class Order(BaseModel):
    id: int


class Other(BaseModel):
    id: int


async def handle(payload: Any) -> None: ...


async def takes_other(payload: Other) -> None: ...


def produce() -> Iterator[int]:
    yield 1
