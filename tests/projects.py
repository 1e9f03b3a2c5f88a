"""Fixtures for all suites: a project to run, on each broker or on one of them, and another program beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.foreign import Foreign
from tests.node import Broker, Node
from tests.project import MEMORY, Place, Project

PREFIXES_AT_ONCE = 25


class Sweeper:
    """Deletes what tests have left on a shared node: some hundred idle quorum queues would slow it down."""

    def __init__(self, node: Broker) -> None:
        self._node = node
        self._prefixes: list[str] = []

    def note(self, prefix: str) -> None:
        """Note that names with this prefix are not needed any more."""
        self._prefixes.append(prefix)
        if len(self._prefixes) >= PREFIXES_AT_ONCE:
            self.sweep()

    def sweep(self) -> None:
        """Delete queues and exchanges."""
        if not self._prefixes:
            return
        prefixes = ", ".join(f'<<"{prefix}">>' for prefix in self._prefixes)
        self._node.eval(
            f"""
            Mine = fun({{resource, _, _, Name}}) ->
                lists:any(fun(Prefix) -> string:prefix(Name, Prefix) =/= nomatch end, [{prefixes}])
            end,
            [rabbit_amqqueue:delete(Q, false, false, <<"tests">>)
                || Q <- rabbit_amqqueue:list(<<"/">>), Mine(amqqueue:get_name(Q))],
            [rabbit_exchange:delete(element(2, X), false, <<"tests">>)
                || X <- rabbit_exchange:list(<<"/">>), Mine(element(2, X))],
            ok."""
        )
        self._prefixes.clear()


@pytest.fixture(scope="session")
def sweeper(rabbitmq: Broker) -> Iterator[Sweeper]:
    sweeper = Sweeper(rabbitmq)
    yield sweeper
    sweeper.sweep()


@pytest.fixture(scope="session")
def managed_sweeper(managed: Broker) -> Iterator[Sweeper]:
    sweeper = Sweeper(managed)
    yield sweeper
    sweeper.sweep()


@pytest.fixture(params=["memory", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Place:
    """Each of the brokers in turn: a test that asks for it runs twice."""
    if request.param == "memory":
        return MEMORY
    place: Place = request.getfixturevalue("on_rabbitmq")
    return place


@pytest.fixture
def on_rabbitmq(rabbitmq: Broker, unique: str, sweeper: Sweeper) -> Iterator[Place]:
    """The shared node, where names begin with `unique`."""
    yield Place.at(rabbitmq.url)
    sweeper.note(unique)


@pytest.fixture
def project(tmp_path: Path, unique: str, broker: Place) -> Project:
    """A project that runs on each of the brokers."""
    return Project(tmp_path, unique, broker)


@pytest.fixture
def memory_project(tmp_path: Path, unique: str) -> Project:
    """A project that runs on the embedded broker only."""
    return Project(tmp_path, unique, MEMORY)


@pytest.fixture
def rabbit_project(tmp_path: Path, unique: str, on_rabbitmq: Place) -> Project:
    """A project that runs on RabbitMQ only."""
    return Project(tmp_path, unique, on_rabbitmq)


@pytest.fixture
def own_project(tmp_path: Path, unique: str, own_node: Node) -> Project:
    """A project on a node that may be broken."""
    return Project(tmp_path, unique, Place.at(own_node.url))


@pytest.fixture
def managed_project(tmp_path: Path, unique: str, managed: Broker, managed_sweeper: Sweeper) -> Iterator[Project]:
    """A project on the node with the management API, which it is not told of."""
    yield Project(tmp_path, unique, Place.at(managed.url))
    managed_sweeper.note(unique)


@pytest.fixture
def project_with_api(managed_project: Project, managed: Broker) -> Project:
    """The same project, which knows the address of the management API."""
    managed_project.place = Place.at(managed.url, "--management", managed.management_url)
    return managed_project


@pytest.fixture
def foreign(rabbitmq: Broker) -> Iterator[Foreign]:
    """Another program on the shared node."""
    with Foreign(rabbitmq.url) as foreign:
        yield foreign


@pytest.fixture
def other(managed: Broker) -> Iterator[Foreign]:
    """Another program on the node with the management API."""
    with Foreign(managed.url) as other:
        yield other


@pytest.fixture
def vhost(rabbitmq: Broker, unique: str) -> Iterator[Place]:
    """A virtual host for this test alone on the shared node, where any name may be used."""
    with rabbitmq.vhost(unique) as url:
        yield Place.at(url)
