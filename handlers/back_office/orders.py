"""What the back office does with an order, and with a day of them."""

from collections.abc import Iterator
from datetime import date, timedelta
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field

from handlers.back_office.books import Books, NotEnough, UnknownArticle
from handlers.back_office.mail import MailServer
from runner import BatchFailed, Message, Publish, Reject


class Order(BaseModel):
    """An order as it comes in, paid in advance."""

    number: int
    customer: str
    email: str
    article: str
    quantity: int = Field(gt=0)
    cents: int = Field(gt=0)


class OrderReserved(Order):
    """An order whose articles lie on a shelf."""

    shelf: str


class OrderDeclined(Order):
    """An order of more than there is."""

    reason: str


def reserve_stock(order: Order, books: Books) -> Publish:
    """Reserve the articles. A customer's orders come one after another, so the first one gets the last article."""
    try:
        shelf = books.reserve(order.number, order.article, order.quantity)
    except UnknownArticle as error:
        raise Reject(str(error)) from error
    except NotEnough as error:
        return Publish(OrderDeclined(**order.model_dump(), reason=str(error)), to="stock.short")
    return Publish(OrderReserved(**order.model_dump(), shelf=shelf), to="stock.reserved")


def send_mail(order: OrderReserved | OrderDeclined, mailbox: MailServer) -> None:
    """Write to the customer: blocking code, so it runs in a thread."""
    if isinstance(order, OrderReserved):
        mailbox.send(order.email, f"Your order {order.number} is on its way", f"It is on shelf {order.shelf}.")
    else:
        mailbox.send(order.email, f"Your order {order.number}: we are sorry", f"There is only {order.reason}.")


def book_payments(
    orders: list[OrderReserved], messages: list[Message], books: Books, limit: int, timezone: str
) -> Iterator[object]:
    """Book a batch in one transaction. A payment over the limit, in cents, is for a person to look at."""
    over = {position: order for position, order in enumerate(orders) if order.cents > limit}
    good = [(order, message) for order, message in zip(orders, messages, strict=True) if order.cents <= limit]
    books.book([(order.number, _day(message, timezone).isoformat(), order.cents) for order, message in good])
    if good:
        yield {"orders": [order.number for order, _ in good], "cents": sum(order.cents for order, _ in good)}
    if over:
        raise BatchFailed({position: Reject(f"{order.cents} is over the limit") for position, order in over.items()})


def report() -> str:
    """Say that a report is due. Its day is that of the message, also when it is handled later."""
    return "daily"


def send_report(due: str, message: Message, books: Books, mailbox: MailServer, to: str, timezone: str) -> None:
    """Report the payments of the day before."""
    day = _day(message, timezone) - timedelta(days=1)
    count, cents = books.payments_of(day)
    mailbox.send(to, f"{day}: {count} payment{'s' * (count != 1)}, {cents / 100:.2f} EUR", "")


def _day(message: Message, timezone: str) -> date:
    assert message.timestamp is not None  # the runner sets it
    return message.timestamp.astimezone(ZoneInfo(timezone)).date()
