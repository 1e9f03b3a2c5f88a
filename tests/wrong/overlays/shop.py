def ship(order: dict) -> dict:
    return order


def receipt(order: dict) -> None: ...
