"""Elects a leader with a queue that has a single active consumer. The leader's state outlives it.

Taking over. The active consumer publishes a call to the queue. When the call arrives, everything that was in the queue
has arrived before it, so the newest token has the state. The candidate writes that state again, in a term of its own,
and leads as soon as this token has arrived. To save is to write the next version, and to wait until the broker has
confirmed and delivered it: then the next leader will get it. Tokens of earlier terms that arrive late are dropped.

The lease. A write that arrives proves that the session was the active consumer when it was sent. The proof is a lease:
it lasts for one heartbeat interval by the session's own clock, and is renewed four times within it. When it expires,
the session does not lead any more, and campaigns again. The broker gives up a silent connection after more than two
intervals (measured: 2.7), so a partition between a leader and the broker makes no second leader. Two sessions can
believe to lead, for one interval at most, where the broker activates the next consumer and the first one does not hear
of it: when an operator closes its connection during a partition, or when the nodes of a cluster lose each other. No
lease helps a process that is frozen between reading `is_leader` and acting on it; its `save` fails.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aiormq.exceptions import ChannelNotFoundEntity

from runner.backoff import backoff_delays
from runner.errors import PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.tasks import cancel_and_wait, wait_set
from runner.transports.base import OnTransportEvent, TransportEvent
from runner.transports.leadership import (
    NAME_SHARED,
    Candidate,
    LeaderState,
    NotLeader,
    choose_start,
    name_shared_fields,
)
from runner.transports.rabbitmq.aiormq_workarounds import CHANNEL_ERRORS, ConnectionLost, loss_as_error
from runner.transports.rabbitmq.candidacy import CLOSE_S, Candidacy, CandidacyLost
from runner.transports.rabbitmq.connection import ConnectionClosedByUs, ReconnectingConnection
from runner.transports.rabbitmq.publisher import RabbitPublisher
from runner.transports.rabbitmq.topology import DeclaredTopology

RENEWALS_IN_A_LEASE = 4
ATTEMPTS_IN_A_LEASE = 2

CALL_S = 30.0
"""Maximum delay between the calls of a follower. After a lost token, a leadership is back within this time."""

ANSWER_S = 2.0
"""How long the leader may take to answer."""

MAX_DELAY_S = 5.0


class RabbitLeadership:
    """See `Leadership`. It campaigns from `compete` to `resign`, with one candidacy after the other."""

    def __init__(
        self,
        name: str,
        connection: ReconnectingConnection,
        publisher: RabbitPublisher,
        topology: DeclaredTopology,
        *,
        heartbeat_s: float,
        on_transport_event: OnTransportEvent,
        member: Candidate,
    ) -> None:
        self._name = name
        self._connection = connection
        self._publisher = publisher
        self._topology = topology
        self._send = on_transport_event
        self._member = member
        self._has_joined = False
        """Whether it has led, or a leader has answered it. Then it begins no start of its own."""
        self._fingerprints = {member.fingerprint}
        self._lease_s = heartbeat_s
        self._renew_s = self._lease_s / RENEWALS_IN_A_LEASE
        self._attempt_s = self._lease_s / ATTEMPTS_IN_A_LEASE
        self._candidacy: Candidacy | None = None
        self._won: Candidacy | None = None
        self._known: Candidacy | None = None
        """The candidacy with which the caller knows that it leads."""
        self._change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it begins to lead, or resigns; then replaced by a new one."""
        self._resigning: asyncio.Task[None] | None = None
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_leader(self) -> bool:
        return self._won is not None and self._won.is_valid

    @property
    def state(self) -> Mapping[str, Any]:
        candidacy = self._known = self._require_lead()
        return copy.deepcopy(candidacy.token.state)

    @property
    def start(self) -> str:
        return self._require_lead().start

    async def ask_leader(self) -> LeaderState | None:
        candidacy = self._candidacy
        if candidacy is None or self.is_leader:
            return None
        try:
            async with asyncio.timeout(ANSWER_S):
                return await candidacy.run_while_valid(candidacy.ask_leader(self._name))
        except (TimeoutError, CandidacyLost):
            return None

    async def compete(self) -> None:
        """Start to campaign. Raises what the broker answers to the first attempt."""
        self._candidacy = await self._stand()
        self._task = asyncio.create_task(self._compete(self._candidacy), name=f"leadership-{self._name}")

    async def wait_won(self) -> None:
        while not self.is_leader:
            if self._resigning is not None:
                raise NotLeader(f'the leadership of "{self._name}" was resigned')
            await asyncio.shield(self._change)
        self._known = self._won

    async def wait_lost(self) -> None:
        candidacy = self._known or self._won
        if candidacy is not None and candidacy.is_valid:
            await asyncio.wait((candidacy.ended,))

    async def save(self, state: Mapping[str, Any]) -> None:
        candidacy = self._require_lead()
        if candidacy is not self._known:
            raise NotLeader(f'the leadership of "{self._name}" was lost and won again: read its state first')
        copied: dict[str, Any] = json.loads(json.dumps(dict(state), allow_nan=False))
        try:
            await candidacy.run_while_valid(self._write(candidacy, copied))
        except CandidacyLost as lost:
            raise NotLeader(f'the leadership of "{self._name}" was lost while saving: {lost}') from lost

    async def resign(self) -> None:
        """See `Leadership.resign`. It takes effect even if the caller is cancelled."""
        if self._resigning is None:
            if self._candidacy is not None:
                self._candidacy.end("resigned")
            self._resigning = asyncio.create_task(self._leave(), name=f"resigning-{self._name}")
            self._signal_change()
        await asyncio.shield(self._resigning)

    async def _leave(self) -> None:
        if self._task is not None and self._candidacy is not None:
            await asyncio.wait((self._task,), timeout=CLOSE_S + 1)
        await cancel_and_wait(self._task)

    def _require_lead(self) -> Candidacy:
        if self._won is None or not self._won.is_valid:
            raise NotLeader(f'this session does not lead "{self._name}"')
        return self._won

    def _signal_change(self) -> None:
        self._change.set_result(None)
        self._change = asyncio.get_running_loop().create_future()

    async def _compete(self, candidacy: Candidacy) -> None:
        """Campaign with one candidacy after the other, until resigned or cancelled."""
        delays = backoff_delays(max_s=MAX_DELAY_S)
        while True:
            self._candidacy = candidacy
            has_led = await self._hold_candidacy(candidacy)
            self._candidacy = None
            if has_led:
                delays = backoff_delays(max_s=MAX_DELAY_S)
            if self._resigning is not None:
                return
            try:
                candidacy = await self._stand_again(delays)
            except ConnectionClosedByUs:
                return

    async def _stand(self) -> Candidacy:
        return await Candidacy.take(await self._connection.ready(), self._name, self._member, self._on_other_candidate)

    async def _stand_again(self, delays: Iterator[float]) -> Candidacy:
        """Return a new candidacy as soon as the broker allows it."""
        while True:
            await asyncio.sleep(next(delays))
            try:
                with loss_as_error:
                    return await self._stand()
            except ConnectionLost:
                pass  # reported by the connection
            except CHANNEL_ERRORS as error:
                self._report_failure(error)
                if isinstance(error, ChannelNotFoundEntity):
                    await self._topology.try_restore(self._connection)

    async def _hold_candidacy(self, candidacy: Candidacy) -> bool:
        """Wait to lead, and lead, until the candidacy is lost. Return whether it has led."""
        try:
            await candidacy.run_while_valid(self._take_part(candidacy))
        except CandidacyLost as lost:
            if self._won is candidacy and self._resigning is None:
                self._report("leadership.lost", "warning", error=str(lost))
        except PublishFailed as failure:
            self._report_failure(failure)
        finally:
            await candidacy.leave("given up")
        return self._won is candidacy

    async def _take_part(self, candidacy: Candidacy) -> None:
        await self._call_until_first(candidacy)
        candidacy.expire_at(_now() + self._lease_s, "the broker took no message in time")
        await self._pass_through(candidacy, candidacy.call)
        candidacy.term = candidacy.token.term + 1
        candidacy.start = choose_start(candidacy.token.start, self._member.start, has_joined=self._has_joined)
        await self._write(candidacy, candidacy.token.state)
        self._won, self._has_joined = candidacy, True
        self._signal_change()
        self._report("leadership.won", "info", term=candidacy.term)
        await candidacy.start_leading()
        while True:
            await asyncio.sleep(candidacy.expires_at - _now() - self._lease_s + self._renew_s)
            if _now() >= candidacy.expires_at - self._lease_s + self._renew_s:
                await self._write(candidacy, None)

    async def _call_until_first(self, candidacy: Candidacy) -> None:
        """Return when anything has arrived: this is the active consumer. Publish calls, in case the queue is empty."""
        for pause in backoff_delays(max_s=CALL_S):
            try:
                async with asyncio.timeout(self._attempt_s):
                    await self._publish(candidacy.call())
                    if not self._has_joined:  # after the confirm: a refused greeting would close the channel
                        await candidacy.greet(self._name)
            except PublishFailed as failure:
                self._report_failure(failure)
                if failure.reason == "unroutable":
                    candidacy.end("its queue is gone")
            except (PublishUnknown, TimeoutError) as error:
                self._report_failure(error)
            if await wait_set(candidacy.is_first, pause):
                return

    async def _write(self, candidacy: Candidacy, state: dict[str, Any] | None) -> None:
        """Write a state, or the current one again, until it has arrived, as often as the lease allows."""
        async with candidacy.writing:
            content = candidacy.token.state if state is None else state
            since = await self._pass_through(candidacy, lambda: candidacy.next_token(content))
            candidacy.expire_at(since + self._lease_s, "the lease could not be renewed in time")

    async def _pass_through(self, candidacy: Candidacy, make: Callable[[], Envelope]) -> float:
        """Publish a message to the queue until it arrives here; return when the one that arrived was published."""
        for pause in backoff_delays(max_s=self._renew_s):
            since, envelope = _now(), make()
            arrived = candidacy.expect(envelope)
            try:
                async with asyncio.timeout(self._attempt_s):
                    await self._publish(envelope)
                    await arrived
                return since
            except PublishFailed as failure:
                if failure.reason in ("invalid", "unavailable"):
                    raise
                self._report_failure(failure)
            except (PublishUnknown, TimeoutError) as error:
                self._report_failure(error)
            finally:
                arrived.cancel()
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    async def _publish(self, envelope: Envelope) -> None:
        await self._publisher.publish(Address("", self._name), envelope)
        self._failures = 0

    def _on_other_candidate(self, other: Candidate, led: LeaderState | None) -> None:
        """Note a session that greets, or that leads and answers. Report once that it runs something else."""
        self._has_joined = self._has_joined or led is not None
        if other.fingerprint not in self._fingerprints:
            self._fingerprints.add(other.fingerprint)
            self._send(TransportEvent(NAME_SHARED, "warning", name_shared_fields(self._name, other)))

    def _report_failure(self, error: Exception) -> None:
        """Report once why it cannot campaign, at the second failure: the connection reports its own loss."""
        self._failures += 1
        if self._failures == 2:
            self._report("leadership.waiting", "warning", error=str(error.__cause__ or error) or "no answer in time")

    def _report(self, event: str, level: str, **fields: Any) -> None:
        self._send(TransportEvent(event, level, {"queue": self._name, **fields}))


def _now() -> float:
    return asyncio.get_running_loop().time()
