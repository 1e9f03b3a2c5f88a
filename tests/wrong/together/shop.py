"""What the pipelines of this folder name."""

import dataclasses


@dataclasses.dataclass
class Order:
    """What one of them thinks is in the queue."""

    id: int


@dataclasses.dataclass
class Bill:
    """What the other one thinks."""

    id: int


def place():
    """Place orders."""


def ship(order):
    """Ship an order."""
