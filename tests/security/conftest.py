"""Users of the shared node that have a canary for a password."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, quote_plus

import pytest

from tests.node import Broker

PLAIN = "S3CR3T-CANARY"
SPECIAL = "S3CR3T/CAN@RY:t#e %birdü"


@dataclass(frozen=True)
class Canary:
    """A user of the shared node whose password must not be seen."""

    user: str
    password: str
    port: int

    @property
    def url(self) -> str:
        """Where the user logs in, as it is written into a pipeline: special characters as %XX."""
        return self.url_at(self.port)

    def url_at(self, port: int, scheme: str = "amqp", vhost: str = "") -> str:
        return f"{scheme}://{self.user}:{quote(self.password, safe='')}@127.0.0.1:{port}/{vhost}"

    def found_in(self, text: str) -> list[str]:
        """Return which forms of the password, or of a part of it that says something, a text has."""
        return [form for form in self._forms() if form in text]

    def _forms(self) -> set[str]:
        forms = {self.password, quote(self.password, safe=""), quote(self.password), quote_plus(self.password)}
        if self.password != PLAIN:
            forms |= {"CAN@RY", "CAN%40RY", "t#e", "t%23e", "birdü", "bird%C3%BC", "bird\\xfc", "bird\\u00fc"}
        return forms | {"S3CR3T"}


def add_user(
    node: Broker, user: str, password: str, configure: str = ".*", write: str = ".*", read: str = ".*"
) -> None:
    """Make a user with these rights in the default virtual host. The password is on no command line in clear."""
    listed = ",".join(map(str, password.encode()))
    rights = ", ".join(f'<<"{right}">>' for right in (configure, write, read))
    rights = rights.replace("\\", "\\\\")
    node.eval(
        f"""ok = rabbit_auth_backend_internal:add_user(<<"{user}">>, <<{listed}>>, <<"tests">>),
        rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"/">>, {rights}, <<"tests">>)."""
    )


@pytest.fixture(scope="session")
def canaries(rabbitmq: Broker, worker_id: str) -> dict[str, Canary]:
    """Users with all rights, by what is special about their passwords."""
    made = {
        "plain": Canary(f"canary-plain-{worker_id}", PLAIN, rabbitmq.port),
        "special": Canary(f"canary-special-{worker_id}", SPECIAL, rabbitmq.port),
    }
    for canary in made.values():
        add_user(rabbitmq, canary.user, canary.password)
    return made


@pytest.fixture
def special(canaries: dict[str, Canary]) -> Canary:
    """The canary whose password has to be written with %XX."""
    return canaries["special"]


@pytest.fixture(params=["plain", "special"])
def canary(request: pytest.FixtureRequest, canaries: dict[str, Canary]) -> Canary:
    """Each of the canaries in turn."""
    return canaries[request.param]
