"""Not Python."""


def ship(order):
    x = = order
