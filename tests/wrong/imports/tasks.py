"""Handlers with habits of other libraries."""

from dataclasses import dataclass

from pydantic import BaseModel


class Order(BaseModel):
    number: int


@dataclass
class Customer:
    name: str


def check_out(order: Order, customer: Customer):
    print(order.number, customer.name)


def charge(self, payment: dict):
    try:
        print(payment)
    except OSError as error:
        raise self.retry(exc=error, countdown=60) from error
