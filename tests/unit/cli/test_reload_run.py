"""What `runner dev` and `runner up --watch` refuse, and where the page is."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner.cli import cli
from runner.cli.reload_run import _usable


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("up", "--watch", "--workers=2"), 2, "--workers: --watch reloads one process"),
        (("up", "--watch", "--until-idle"), 2, "--until-idle: --watch runs until it is stopped"),
        (("dev", "--broker=memory"), 2, "--broker"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, restored_logging: None, arguments: tuple[str, ...], code: int, text: str
) -> None:
    (tmp_path / "shop.yaml").write_text("version: 1\n")
    result = CliRunner().invoke(cli, [*arguments, str(tmp_path / "shop.yaml")])
    assert result.exit_code == code, result.output
    assert text in result.output


def test_a_pipeline_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runner", "dev", "nowhere.yaml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 78
    assert "nowhere.yaml" in ended.stdout + ended.stderr


def test_a_port_that_is_taken() -> None:
    """The page takes another one; an address that was asked for is left to the server, which says that it is taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: tuple[str, int] = server.getsockname()
        host, port = _usable(taken, may_differ=True)
        assert (host, port != taken[1], port > 0) == ("127.0.0.1", True, True)
        assert _usable(taken, may_differ=False) == taken


def test_port_0_becomes_a_port_that_stays() -> None:
    assert _usable(("127.0.0.1", 0), may_differ=False)[1] > 0
