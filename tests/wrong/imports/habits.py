from runner import Message, NackMessage, RejectMessage


def send(order: dict, message: Message) -> None:
    if not order:
        raise RejectMessage("no address")
    raise NackMessage()
