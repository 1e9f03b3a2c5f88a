"""What the pipelines of this folder name."""


def place():
    """Place orders."""


def ship(order):
    """Ship an order."""


def ship_with(order, **options):
    """Ship an order in some way."""


def price(order) -> dict:
    """Price an order."""


def split(order):
    """Yield the parts of an order."""
    yield order


def log(order) -> None:
    """Log an order."""


def tick() -> None:
    """Note the time."""


def bill(order: dict) -> None:
    print(order.number)


def bill_all(orders: list[dict]) -> None:
    orders.sort(key=str)
