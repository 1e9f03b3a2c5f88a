def print_label(order: dict, carrier: str, weight: float) -> None:
    print(order, carrier, weight)
