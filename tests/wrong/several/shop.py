"""What the pipelines of this folder name."""


def place():
    """Place orders."""


def ship(order):
    """Ship an order."""


def charge(order, limit: int):
    """Charge it."""
