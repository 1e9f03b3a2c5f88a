def print_label(order: dict, carrier: str, weight: float) -> None:
    print(order, carrier, weight)


def print_first(carrier: str, order: dict) -> None:
    print(carrier, order)


def retry(self, order: dict) -> None:
    if self.request.retries > 3:
        print("too often", self.request.id)
    raise self.retry(countdown=60)


def retry_more_slowly(self, order: dict) -> None:
    raise self.retry(countdown=2**self.request.retries)


def retry_as_usual(self, order: dict) -> None:
    raise self.retry()
