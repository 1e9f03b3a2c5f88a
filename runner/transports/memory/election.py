"""Engine: the leadership among the sessions of one in-process broker, and the state that leaders pass on."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from runner.transports.base import OnTransportEvent, TransportEvent
from runner.transports.leadership import (
    NAME_SHARED,
    Candidate,
    LeaderState,
    NotLeader,
    choose_start,
    name_shared_fields,
)


class Election:
    """The leadership of one name. The first candidate leads; the state outlives all candidates."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.candidates: deque[MemoryLeadership] = deque()
        self.state = "{}"
        self.start = ""

    async def save(self, state: str) -> None:
        """Keep a state. In memory, it lives as long as the broker."""
        self.state = state


class MemoryLeadership:
    """See `Leadership`. Within one process no connection is lost: leadership ends only with `end`."""

    def __init__(self, election: Election, member: Candidate, on_transport_event: OnTransportEvent) -> None:
        loop = asyncio.get_running_loop()
        self._election = election
        self._member = member
        self._on_event = on_transport_event
        self._has_joined = bool(election.candidates)
        self._known = {member.fingerprint}
        self._won: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        for other in election.candidates:
            other.compare(member)
            self.compare(other._member)
        election.candidates.append(self)
        election.candidates[0].win()

    @property
    def is_leader(self) -> bool:
        return self._won.done() and not self._ended.done()

    @property
    def state(self) -> Mapping[str, Any]:
        self._must_lead()
        state: dict[str, Any] = json.loads(self._election.state)
        return state

    @property
    def start(self) -> str:
        self._must_lead()
        return self._election.start

    async def ask_leader(self) -> LeaderState | None:
        if self.is_leader or self._ended.done():
            return None
        return LeaderState(self._election.start, json.loads(self._election.state))

    async def wait_won(self) -> None:
        await asyncio.wait((self._won, self._ended), return_when=asyncio.FIRST_COMPLETED)
        self._must_lead()

    async def wait_lost(self) -> None:
        if self.is_leader:
            await asyncio.wait((self._ended,))

    async def save(self, state: Mapping[str, Any]) -> None:
        self._must_lead()
        await self._election.save(json.dumps(dict(state), allow_nan=False))

    async def resign(self) -> None:
        self.end()

    def win(self) -> None:
        """Begin to lead. Idempotent."""
        if not self._won.done():
            self._election.start = choose_start(self._election.start, self._member.start, has_joined=self._has_joined)
            self._won.set_result(None)

    def compare(self, other: Candidate) -> None:
        """Report once that another candidate runs something else."""
        if other.fingerprint not in self._known:
            self._known.add(other.fingerprint)
            self._on_event(TransportEvent(NAME_SHARED, "warning", name_shared_fields(self._election.name, other)))

    def end(self) -> None:
        """Withdraw; the next candidate leads. Idempotent."""
        if self._ended.done():
            return
        self._ended.set_result(None)
        self._election.candidates.remove(self)
        if self._election.candidates:
            self._election.candidates[0].win()

    def _must_lead(self) -> None:
        if not self.is_leader:
            raise NotLeader(f'this session does not lead "{self._election.name}"')
