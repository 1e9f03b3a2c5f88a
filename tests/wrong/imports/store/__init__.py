"""A package."""


def ship(order):
    """Ship an order."""
