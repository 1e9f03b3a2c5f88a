"""Handlers of the pipeline whose wrong tests are in this folder."""


class CarrierAway(Exception):
    """The carrier does not answer."""


def report() -> str:
    return "report"


def book(payment: dict[str, int]) -> None: ...


def ship(order: dict[str, int]) -> dict[str, int]:
    return order


def send_receipt(order: dict[str, int]) -> None: ...


def open_db() -> object:
    return object()
