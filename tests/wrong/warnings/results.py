"""Handlers whose results do not fit where they go."""

from pydantic import BaseModel


class Line(BaseModel):
    article: str


class Reserved(BaseModel):
    shelf: str


class Short(BaseModel):
    missing: int


def split(order: dict) -> list[Line]:
    return [Line(article=name) for name in order["articles"]]


def reserve(order: dict) -> Reserved | Short:
    return Reserved(shelf="A") if order["number"] else Short(missing=1)


def set_aside(order: dict) -> Reserved:
    return Reserved(shelf=order["article"])
