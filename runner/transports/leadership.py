"""Contract: what it means to lead, among all the sessions of a broker that ask for the leadership of one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from runner.errors import RunnerError

NAME_SHARED = "pipeline.name_shared"
"""The log event for another session that takes part under the same name and runs something else."""


class NotLeader(RunnerError):
    """Somebody without the leadership, or not with it any more, asked for what only the leader may do."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a session says about itself when it takes part in a leadership.

    `start` names the start that begins if no other session takes part; workers of one master share theirs.
    `fingerprint` stands for what the session runs, `where` tells people which process it is.
    """

    start: str = field(default_factory=lambda: uuid4().hex)
    fingerprint: str = ""
    where: str = ""


class LeaderState(NamedTuple):
    """What the leader of the moment says: the start that it leads in, and the state that it has saved last."""

    start: str
    state: Mapping[str, Any]


def choose_start(last: str, own: str, *, has_joined: bool) -> str:
    """Return the start that a new leader leads in: the last one if it took part in it, else its own begins."""
    return last if has_joined and last else own


class Leadership(Protocol):
    """One session's part in the leadership of a name: it competes from the start, and again after each loss.

    `wait`, work, `lost`, stop working, and again: leadership may be won back, and others may have led in between.
    """

    @property
    def is_leader(self) -> bool:
        """Whether we lead. False as soon as the connection is known to be lost, or our lease of it has run out."""
        ...

    @property
    def state(self) -> Mapping[str, Any]:
        """A copy of what the last leader saved, `{}` at first. Raises NotLeader where we do not lead."""
        ...

    @property
    def start(self) -> str:
        """The name of the start that we lead in. Raises NotLeader where we do not lead.

        A session joins the start of the sessions that it finds at work; one that finds none begins the start that its
        `Candidate` names. No clock decides this: it is joining that counts.
        """
        ...

    async def ask_leader(self) -> LeaderState | None:
        """Ask the session that leads for its start and state. None if no session answers in time, or we lead."""
        ...

    async def wait_won(self) -> None:
        """Return when we lead, now or again. Raises NotLeader after `resign`."""
        ...

    async def wait_lost(self) -> None:
        """Return when the leadership that `wait` came back with is over, even if it has been won again meanwhile."""
        ...

    async def save(self, state: Mapping[str, Any]) -> None:
        """Replace the state, and return when every later leader will see this one or a newer one.

        Only what JSON can say comes back equal; raises TypeError or ValueError for the rest. Raises NotLeader where we
        do not lead, and also where leadership was lost since `wait` returned or `state` was read, though it is ours
        again: others may have saved meanwhile. When leadership is lost while saving, the next leader sees either the
        old state or the new one, and so it is for a save that is cancelled.
        """
        ...

    async def resign(self) -> None:
        """Give it up for good, or stop competing for it. Idempotent, bounded in time."""
        ...


def name_shared_fields(name: str, other: Candidate) -> dict[str, str]:
    """Return what is said of another session that runs something else under the same name."""
    hint = "an update that is still rolling out, or another project: then give one of them another `name:`"
    return {"pipeline": name.removesuffix(".producers"), "other": other.where or "unknown", "hint": hint}
