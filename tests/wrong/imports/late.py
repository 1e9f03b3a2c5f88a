"""A model one of whose types is there for type checkers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from decimal import Decimal


class Bill(BaseModel):
    """What is to be paid."""

    amount: Decimal
    order: Order


class Order(BaseModel):
    """A type that is made later, and found."""

    id: int
