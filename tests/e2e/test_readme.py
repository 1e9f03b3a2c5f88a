"""The README is true: its files and commands are run as a reader would, and its output is what they print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import documents
from tests.node import Broker
from tests.process import ROOT

README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def virtual_host(rabbitmq: Broker, unique: str) -> Iterator[str]:
    """The URL of a virtual host of this test's own, so that the README's queue names meet nobody else's."""
    rabbitmq.ctl("add_vhost", unique)
    rabbitmq.ctl("set_permissions", "-p", unique, "guest", ".*", ".*", ".*")
    yield rabbitmq.url.rstrip("/") + f"/{unique}"
    rabbitmq.ctl("delete_vhost", unique)


def test_the_readme_does_what_it_says(tmp_path: Path, virtual_host: str) -> None:
    """Whoever types what the README shows sees what the README shows."""
    for name, body in documents.files(README).items():
        (tmp_path / name).write_text(body, "utf-8")
    commands = list(documents.commands(README))
    assert len(commands) >= 6
    env = {"RABBITMQ_URL": virtual_host, "PYTHONPATH": str(ROOT)}
    for command in commands:
        printed = documents.run(command, tmp_path, env)
        wrong = documents.differences(command, printed)
        assert not wrong, f"README.md:{command.number}: $ {command.line}\n" + "\n".join(wrong) + f"\n---\n{printed}"


@pytest.mark.parametrize("promised", ["12:00:00 a │ done 12345678 5 ms", "anything … end"])
def test_a_wrong_promise_is_noticed(promised: str) -> None:
    """The comparison itself can fail: a line that was not printed, and one that was not promised."""
    assert documents.differences(documents.Command("x", [promised]), "something else\n")
    assert documents.differences(documents.Command("x", [promised]), "")


def test_times_ids_and_order_do_not_matter() -> None:
    """What differs from run to run is not compared."""
    command = documents.Command("x", ["12:00:00 a │ done 0a1b2c3d 5 ms", "…"])
    assert not documents.differences(command, "more\n13:59:01 a │ done ffff0000 6.1 ms\n")
