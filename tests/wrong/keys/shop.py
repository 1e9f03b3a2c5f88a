"""What the pipelines of this folder name."""

import dataclasses


@dataclasses.dataclass
class Order:
    """One order."""

    id: int


def place():
    """Place orders."""


def ship(order):
    """Ship an order."""
