"""Engine: who leads among the sessions of one in-process broker, and the state that the leaders hand on."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from runner.transports.base import OnStateChange, StateChange
from runner.transports.leadership import NAME_SHARED, Led, Member, NotLeader, shared_by, start_of


class Race:
    """The leadership of one name: the first in line leads; the state stays when everybody has left."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.line: deque[MemoryLeadership] = deque()
        self.state = "{}"
        self.start = ""


class MemoryLeadership:
    """See `Leadership`. Nobody is ever lost from sight in one process: what was won ends with `end` alone."""

    def __init__(self, race: Race, member: Member, on_state_change: OnStateChange) -> None:
        loop = asyncio.get_running_loop()
        self._race = race
        self._member = member
        self._say = on_state_change
        self._has_joined = bool(race.line)
        self._known = {member.fingerprint}
        self._won: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        for other in race.line:
            other.compare(member)
            self.compare(other._member)
        race.line.append(self)
        race.line[0].win()

    @property
    def is_leader(self) -> bool:
        """See `Leadership.is_leader`."""
        return self._won.done() and not self._ended.done()

    @property
    def state(self) -> Mapping[str, Any]:
        """See `Leadership.state`."""
        self._must_lead()
        state: dict[str, Any] = json.loads(self._race.state)
        return state

    @property
    def start(self) -> str:
        """See `Leadership.start`."""
        self._must_lead()
        return self._race.start

    async def ask(self) -> Led | None:
        """See `Leadership.ask`."""
        if self.is_leader or self._ended.done():
            return None
        return Led(self._race.start, json.loads(self._race.state))

    async def wait(self) -> None:
        """See `Leadership.wait`."""
        await asyncio.wait((self._won, self._ended), return_when=asyncio.FIRST_COMPLETED)
        self._must_lead()

    async def lost(self) -> None:
        """See `Leadership.lost`."""
        if self.is_leader:
            await asyncio.wait((self._ended,))

    async def save(self, state: Mapping[str, Any]) -> None:
        """See `Leadership.save`."""
        self._must_lead()
        self._race.state = json.dumps(dict(state), allow_nan=False)

    async def resign(self) -> None:
        """See `Leadership.resign`."""
        self.end()

    def win(self) -> None:
        """Lead from now on. Idempotent."""
        if not self._won.done():
            self._race.start = start_of(self._race.start, self._member.start, has_joined=self._has_joined)
            self._won.set_result(None)

    def compare(self, other: Member) -> None:
        """Say, once, that another session takes part that runs something else."""
        if other.fingerprint not in self._known:
            self._known.add(other.fingerprint)
            self._say(StateChange(NAME_SHARED, "warning", shared_by(self._race.name, other)))

    def end(self) -> None:
        """Leave the line; the next in it leads. Idempotent."""
        if self._ended.done():
            return
        self._ended.set_result(None)
        self._race.line.remove(self)
        if self._race.line:
            self._race.line[0].win()

    def _must_lead(self) -> None:
        if not self.is_leader:
            raise NotLeader(f'this session does not lead "{self._race.name}"')
