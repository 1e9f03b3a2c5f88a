"""Handlers that return lists, and that take their items."""

from collections.abc import Iterator

from pydantic import BaseModel


class Line(BaseModel):
    article: str


def split(order: dict) -> list[Line]:
    return [Line(article=name) for name in order["articles"]]


def each(order: dict) -> Iterator[Line]:
    yield from split(order)


def pick(line: Line) -> None:
    print(line.article)


def hear(line: dict) -> None:
    print(line["article"])


def read(lines: list[Line]) -> None:
    print(len(lines))
