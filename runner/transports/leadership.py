"""Contract: the leadership of a name, for which all sessions of a broker campaign that use the name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from runner.errors import RunnerError

NAME_SHARED = "pipeline.name_shared"
"""The log event for another session that campaigns under the same name and runs something else."""


class NotLeader(RunnerError):
    """A session that does not lead, or not any more, called what only the leader may call."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a session says about itself when it campaigns.

    - `start`: the name of the start that begins when no other session campaigns. Workers of one master share it.
    - `fingerprint`: stands for what the session runs.
    - `where`: tells people which process it is.
    """

    start: str = field(default_factory=lambda: uuid4().hex)
    fingerprint: str = ""
    where: str = ""


class LeaderState(NamedTuple):
    """What the current leader answers: the start that it leads in, and the state that it saved last."""

    start: str
    state: Mapping[str, Any]


def choose_start(last: str, own: str, *, has_joined: bool) -> str:
    """Return the start that a new leader leads in: the last one if it has joined it, otherwise its own."""
    return last if has_joined and last else own


class Leadership(Protocol):
    """One session's campaign for the leadership of a name. After each loss it campaigns again.

    Call `wait_won`, work until `wait_lost` returns, stop working, and begin again: leadership may be won back, and
    other sessions may have led in between.
    """

    @property
    def is_leader(self) -> bool:
        """Whether this session leads. False once the connection is known to be lost, or the lease has expired."""

    @property
    def state(self) -> Mapping[str, Any]:
        """A copy of what the last leader saved, `{}` at first. Raises NotLeader."""

    @property
    def start(self) -> str:
        """The name of the start that this session leads in. Raises NotLeader.

        A session joins the start of the sessions that it finds at work; without any, it begins the start that its
        `Candidate` names. Joining decides this, not a clock.
        """

    async def ask_leader(self) -> LeaderState | None:
        """Ask the leader for its start and state. None if it does not answer in time, or this session leads."""

    async def wait_won(self) -> None:
        """Return as soon as this session leads. Raises NotLeader after `resign`."""

    async def wait_lost(self) -> None:
        """Return when the leadership of the last `wait_won` is over, even if it has been won again since."""

    async def save(self, state: Mapping[str, Any]) -> None:
        """Replace the state, and return when every later leader will see this state or a newer one.

        Raises TypeError or ValueError for a state that JSON cannot represent. Raises NotLeader when this session does
        not lead, and also when it has lost and won the leadership since `wait_won` returned or `state` was read: others
        may have saved in between. When leadership is lost while saving, or the save is cancelled, the next leader sees
        either the old state or the new one.
        """

    async def resign(self) -> None:
        """Give up the leadership, and campaign no more. Idempotent, bounded in time."""


def name_shared_fields(name: str, other: Candidate) -> dict[str, str]:
    """Return the log fields about another session that runs something else under the same name."""
    hint = "an update that is still rolling out, or another project: then give one of them another `name:`"
    return {"pipeline": name.rpartition(".")[0], "other": other.where or "unknown", "hint": hint}
