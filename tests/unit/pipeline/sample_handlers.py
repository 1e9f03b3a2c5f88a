"""Handlers that tests of the resolver name."""

from collections.abc import AsyncIterator, Iterator
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


async def produce_async() -> AsyncIterator[int]:
    yield 1


def needs(path: str) -> str:
    return path
