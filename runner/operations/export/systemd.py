"""A systemd unit that runs the pipelines. Pure.

Sources: systemd.service(5), systemd.exec(5), sd_notify(3)
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from runner.operations.export.deployment import KILL_MARGIN_S, Deployment
from runner.units import format_address

WATCHDOG_S = 60
"""Time without a sign of life after which systemd kills the process; longer than a handler should block the loop."""

INVALID = 78
"""The exit code for an invalid pipeline, after which a restart is pointless."""


def systemd(deployment: Deployment, program: Sequence[str], folder: Path) -> str:
    """Return the text of a unit that runs `program` in `folder`."""
    state = f"/var/lib/{deployment.name}"
    command = [*program, "up", *deployment.up_arguments(state)]
    if deployment.http is not None and deployment.http != deployment.listens:
        command += ["--http", format_address(*deployment.http)]
    start_s = round(deployment.connect_timeout_s) + KILL_MARGIN_S
    names = ", ".join(variable.name for variable in deployment.variables)
    notes = [
        f"Save this as /etc/systemd/system/{deployment.name}.service.",
        *([f"Its variables: {names}."] if names else []),
        *deployment.file_notes(state),
        *deployment.notes,
    ]
    unit = files("runner.operations.export").joinpath("systemd_unit.txt").read_text("utf-8")
    return "".join(f"# {note}\n" for note in notes) + Template(unit).substitute(
        name=deployment.name,
        folder=_escaped(str(folder)),
        command=" ".join(map(_quoted, command)),
        start=start_s,
        stop=deployment.stop_timeout_s,
        watchdog=WATCHDOG_S,
        invalid=INVALID,
        state=f"StateDirectory={deployment.name}\nStateDirectoryMode=0700\n" if deployment.file else "",
    )


def _quoted(argument: str) -> str:
    """Quote an argument for systemd, so that `%` and `$` are literal."""
    text = _escaped(argument).replace("$", "$$")
    is_plain = text and not set(text) & set(" \t\n\"'\\;")
    return text if is_plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
