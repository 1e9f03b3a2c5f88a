"""What the pipelines of this folder name."""


def place():
    """Place orders."""


def ship(order):
    """Ship an order."""


def connect(url):
    """Open a resource."""


def with_resources(order, db, cache):
    """Ship with both."""
