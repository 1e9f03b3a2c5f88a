"""The desk takes orders by telephone. It is a program of its own, which publishes by the pipeline's file:

RUNNER_BROKER=amqp://localhost python -m handlers.back_office.desk 17 ada ada@example.com lamp 1 4900
"""

import sys
from pathlib import Path

from runner import Publisher

PIPELINE = Path(__file__).parents[2] / "pipelines/back_office.yaml"


class Desk:
    """Takes orders, and is sure that the broker has them."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def take_order(self, customer: str, email: str, article: str, quantity: int, cents: int, *, number: int) -> str:
        """Publish an order and return its message id, which is the same when it is published again."""
        order = {
            "number": number,
            "customer": customer,
            "email": email,
            "article": article,
            "quantity": quantity,
            "cents": cents,
        }
        return self._publisher.publish("orders", order, id=f"order-{number}")


def main() -> None:
    number, customer, email, article, quantity, cents = sys.argv[1:]
    with Publisher(PIPELINE) as publisher:
        print(Desk(publisher).take_order(customer, email, article, int(quantity), int(cents), number=int(number)))


if __name__ == "__main__":
    main()
