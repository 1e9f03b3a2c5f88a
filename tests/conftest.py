"""The suite brings its own broker: one private node for all workers, and fresh ones for tests that break theirs."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.node import Broker, Node, Place, is_installed, without_nodes
from tests.projects import (
    broker,
    foreign,
    managed_project,
    managed_sweeper,
    memory_project,
    on_rabbitmq,
    other,
    own_project,
    project,
    project_with_api,
    rabbit_project,
    sweeper,
    vhost,
)

__all__ = [
    "broker",
    "foreign",
    "managed_project",
    "managed_sweeper",
    "memory_project",
    "on_rabbitmq",
    "other",
    "own_project",
    "project",
    "project_with_api",
    "rabbit_project",
    "sweeper",
    "vhost",
]

# Machines differ in speed: no example is too slow, and no run differs from the last.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

LENDER = "mqrunner_lender"

LARGE_BODIES = f"max_message_size = {128 * 1024 * 1024}"
"""The default up to 3.13. Since 4.0 it is 16 MiB, as much as we take, so that nothing above our limit would arrive."""


LENT: dict[str, dict[str, Any]] = {"shared": {"config": LARGE_BODIES}, "managed": {"management": True}}
"""The nodes that all tests share, by their names, and what each is started with."""


class Lender:
    """Starts a shared node when it is first asked for. Lives in the process that every worker has in common."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._lock = threading.Lock()
        self._listener: Listener | None = None

    def place(self, name: str) -> Place:
        """Return where the node of this name is, after starting it."""
        with self._lock:
            if name not in self._nodes:
                node = Node(name=name, **LENT[name])
                try:
                    node.start()
                except BaseException:
                    node.close()
                    raise
                self._nodes[name] = node
            return self._nodes[name].place

    def address(self) -> str:
        """Return where other processes may ask for a node's place."""
        if self._listener is None:
            self._listener = Listener(family="AF_UNIX")
            threading.Thread(target=self._answer, args=(self._listener,), daemon=True).start()
        return str(self._listener.address)

    def close(self) -> None:
        """End the nodes and the service."""
        if self._listener is not None:
            with Client(self._listener.address) as wake:
                wake.send(None)
        with self._lock:
            for node in self._nodes.values():
                node.close()

    def _answer(self, listener: Listener) -> None:
        with listener:
            while True:
                with listener.accept() as worker:
                    name = worker.recv()
                    if name is None:
                        return
                    try:
                        worker.send(self.place(name))
                    except Exception as error:  # whatever it is, the worker that asked must report it
                        worker.send(str(error))


lender_key = pytest.StashKey[Lender]()


def pytest_configure(config: pytest.Config) -> None:
    """Every process but a worker of pytest-xdist has a lender; neither it nor what it starts ignores SIGHUP, SIGINT."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # below nohup; what is handled is not inherited
        signal.signal(signal.SIGHUP, lambda *_: None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        config.stash[lender_key] = Lender()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs without RabbitMQ: another line of it cannot change the result."""
    for item in items:
        if not _needs_rabbitmq(item):
            item.add_marker("in_process")


def _needs_rabbitmq(item: pytest.Item) -> bool:
    """Whether a test may talk to a node: one of its fixtures has one, or its parameter is RabbitMQ among brokers."""
    chosen = item.callspec.params.values() if hasattr(item, "callspec") else ()
    is_chosen = any(value == "rabbitmq" or getattr(value, "is_rabbitmq", False) is True for value in chosen)
    return is_chosen or "installed" in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """A test that is marked as one without RabbitMQ fails where it talks to a node all the same."""
    with _held_to_its_mark(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _held_to_its_mark(item):
        return (yield)


def _held_to_its_mark(item: pytest.Item) -> contextlib.AbstractContextManager[None]:
    return without_nodes(item.nodeid) if item.get_closest_marker("in_process") else contextlib.nullcontext()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist, before it starts, where to ask for shared nodes."""
    node.workerinput[LENDER] = node.config.stash[lender_key].address()


def pytest_unconfigure(config: pytest.Config) -> None:
    if (lender := config.stash.get(lender_key, None)) is not None:
        lender.close()


@pytest.fixture(scope="session")
def installed() -> None:
    """What a test asks for that starts a node itself, and every fixture that has one. Without RabbitMQ it skips."""
    if is_installed():
        return
    line = os.environ.get("RABBITMQ")
    if line:
        pytest.fail(f"RabbitMQ {line} is not there: `make .brokers/{line}` makes it", pytrace=False)
    reason = "RabbitMQ is not installed: `make test` installs it where there is apt-get"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def rabbitmq(pytestconfig: pytest.Config, installed: None) -> Broker:
    """A RabbitMQ node shared by the whole run: use names that begin with `unique`, and leave others' connections be."""
    return _lent("shared", pytestconfig)


@pytest.fixture(scope="session")
def managed(pytestconfig: pytest.Config, installed: None) -> Broker:
    """The same with the management API: another node."""
    return _lent("managed", pytestconfig)


def _lent(name: str, config: pytest.Config) -> Broker:
    if (lender := config.stash.get(lender_key, None)) is not None:
        return Broker(lender.place(name))
    with Client(config.workerinput[LENDER]) as controller:  # type: ignore[attr-defined]
        controller.send(name)
        answer = controller.recv()
    if not isinstance(answer, Place):
        pytest.fail(answer, pytrace=False)
    return Broker(answer)


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    """Forget what a test has imported, and from where: the next folder may have a module of the same name."""
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        places = getattr(module, "__file__", None), *getattr(module, "__path__", ())  # a package may have no file
        if any(place and place.startswith(tempfile.gettempdir()) for place in places):
            del sys.modules[name]


@pytest.fixture
def own_node(request: pytest.FixtureRequest, installed: None) -> Iterator[Node]:
    """A fresh RabbitMQ node for this test alone, to kill, freeze and alarm; `@pytest.mark.node(…)` has its options."""
    marker = request.node.get_closest_marker("node")
    with Node(**(marker.kwargs if marker else {})) as node:
        yield node


@pytest.fixture
def no_file_left_open(tmp_path: Path) -> Iterator[None]:
    """Fail where a thread or a connection of a broker in a file outlives its test."""
    yield
    threads = [thread for thread in threading.enumerate() if thread.name == "runner-queue-file"]
    for thread in threads:
        thread.join(timeout=5)  # it has told that its work is done, and may be at its last line
    threads = [thread for thread in threads if thread.is_alive()]
    links = [os.path.realpath(each) for each in Path("/proc/self/fd").iterdir()]
    files = [link for link in links if link.startswith(f"{tmp_path}{os.sep}")]
    assert (threads, files) == ([], []), "left open"


@pytest.fixture
def unique() -> str:
    """A short word that no other test has: names in this test begin with it."""
    return f"t{secrets.token_hex(4)}"
