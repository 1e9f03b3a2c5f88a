"""Stand-ins for the tests of the back office: no test speaks to a mail server."""

from smtplib import SMTPRecipientsRefused


class Mailbox:
    """A mail server that keeps what it gets."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def send(self, to: str, subject: str, text: str) -> None:
        self.sent.append((to, subject))


class MailServerAway:
    """A mail server that refuses connections."""

    def send(self, to: str, subject: str, text: str) -> None:
        raise ConnectionRefusedError("there is no mail server")


class Refusing:
    """A mail server that knows no recipient."""

    def send(self, to: str, subject: str, text: str) -> None:
        raise SMTPRecipientsRefused({to: (550, b"there is no such mailbox")})
