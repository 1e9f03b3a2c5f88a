"""The mail server."""

import smtplib
from email.message import EmailMessage

SENDER = "shop@example.com"


class MailServer:
    """Sends each mail by a connection of its own, so threads need not share one."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def send(self, to: str, subject: str, text: str) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = SENDER, to, subject
        mail.set_content(text)
        with smtplib.SMTP(self.host, self.port, timeout=10) as server:
            server.send_message(mail)
