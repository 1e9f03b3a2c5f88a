"""A module of a package."""


def ship(order):
    """Ship an order."""
