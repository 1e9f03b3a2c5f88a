"""The smallest permissions with which pipelines run, as RabbitMQ's regular expressions over names. Pure.

Declaring needs configure, and with a dead-letter exchange also read on the queue and write on that exchange. Binding
needs write on the queue and read on the exchange, publishing write on the exchange, consuming read on the queue. The
default exchange is called amq.default.
Source: https://www.rabbitmq.com/docs/access-control#authorisation
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from runner.pipeline.delays import bottom_name
from runner.pipeline.model import Pipeline
from runner.pipeline.topology import Exchange, Queue, Topology, pause_queue
from runner.redaction import escape_controls

NOTHING = "^$"
"""Matches no name, in RabbitMQ's own notation."""

DEFAULT_EXCHANGE = "amq.default"

_SPECIAL = re.compile(r"([\\^$.|?*+()\[\]{}])")
_DELAY = "[1-9][0-9]*"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Three anchored expressions, and the virtual host that they are for."""

    vhost: str
    topology: str
    configure: str
    write: str
    read: str

    def as_json(self, user: str) -> dict[str, str]:
        """Return the object that `--json` prints; keys are only ever added."""
        return {"user": user, **asdict(self)}

    def command(self, user: str) -> str:
        """Return the command that sets the permissions."""
        words = ("--vhost", self.vhost, user, self.configure, self.write, self.read)
        return f"rabbitmqctl set_permissions {' '.join(map(_quoted, words))}"

    def as_text(self, user: str) -> str:
        """Return them as commented text, with the command last."""
        lines = [
            f"# virtual host {escape_controls(self.vhost)}, topology: {self.topology}",
            f"# configure  {self.configure}",
            f"# write      {self.write}",
            f"# read       {self.read}",
            self.command(user),
        ]
        return "\n".join(lines) + "\n"


@dataclass(slots=True)
class _Rights:
    """Expressions that are not anchored yet."""

    configure: set[str] = field(default_factory=set)
    write: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)


def permissions(pipelines: Sequence[Pipeline], topology: Topology, vhost: str) -> Permissions:
    """Return the permissions that a user needs to run these pipelines, whose whole topology is given.

    With `manage` they allow declaring everything; otherwise only publishing and consuming. A handler may publish to
    each queue and event of its pipeline, whatever its `to` says.
    """
    mode = pipelines[0].broker.topology
    rights = _Rights()
    for pipeline in pipelines:
        _to_run(pipeline, rights)
        _to_wait(pipeline, topology, rights)
    made = {exchange.name for exchange in topology.exchanges}
    delays = [each.delay_prefix for each in pipelines if bottom_name(each.delay_prefix) in made]
    rights.write |= {_delays(prefix) for prefix in delays}
    if mode == "manage":
        prefixes = [*(pipeline.wait_prefix for pipeline in pipelines if pipeline.subscribers), *delays]
        rights.write |= {_escaped(bottom_name(prefix)) for prefix in delays}  # the target of the lowest step
        _to_declare(topology, prefixes, rights)
    return Permissions(vhost, mode, _anchored(rights.configure), _anchored(rights.write), _anchored(rights.read))


def _to_run(pipeline: Pipeline, rights: _Rights) -> None:
    """Publishing, consuming, leader election, and following pauses."""
    if pipeline.producers or pipeline.subscribers:
        rights.write |= {_exchange(target.address.exchange) for target in pipeline.destinations.values()}
    rights.read |= {_escaped(name) for subscriber in pipeline.subscribers for name in subscriber.queues}
    rights.read |= {_escaped(parts.processes.name) for each in pipeline.subscribers if (parts := each.partitioning)}
    rights.read |= {
        _escaped(f"{pipeline.name}.{each.name}") for each in pipeline.subscribers if each.stream is not None
    }
    if pipeline.subscribers:
        rights.write.add(_exchange(""))
        rights.read.add(_escaped(pause_queue(pipeline.name).name))
    if any(subscriber.dead_letter is not None for subscriber in pipeline.subscribers):
        rights.write.add(_exchange(""))
    if any(producer.handler is not None for producer in pipeline.producers):
        rights.write.add(_exchange(""))
        rights.read.add(_escaped(f"{pipeline.name}.producers"))


def _to_wait(pipeline: Pipeline, topology: Topology, rights: _Rights) -> None:
    """Publishing retries: with any delay, except that `verify` allows only the declared ones."""
    if not pipeline.subscribers:
        return
    if pipeline.broker.topology == "verify":
        rights.write |= {_escaped(item.name) for item in topology.exchanges if _waits(item.name, pipeline.wait_prefix)}
    else:
        rights.write.add(_delays(pipeline.wait_prefix))


def _to_declare(topology: Topology, prefixes: Sequence[str], rights: _Rights) -> None:
    """Declaring and binding what belongs to the pipelines, and wait queues for any delay."""
    for prefix in prefixes:
        for names in (rights.configure, rights.write, rights.read):
            names.add(_delays(prefix))
        rights.write.add(_exchange(""))  # the target of their dead letters
    things: list[Exchange | Queue] = [*topology.exchanges, *topology.queues]
    for thing in things:
        if thing.declare and not any(_waits(thing.name, prefix) for prefix in prefixes):
            _to_make(thing, rights)
    for binding in topology.bindings:
        if not any(_waits(binding.queue, prefix) for prefix in prefixes):
            rights.write.add(_escaped(binding.queue))
            rights.read.add(_exchange(binding.exchange))


def _to_make(thing: Exchange | Queue, rights: _Rights) -> None:
    rights.configure.add(_escaped(thing.name))
    key = "x-dead-letter-exchange" if isinstance(thing, Queue) else "alternate-exchange"
    if key in thing.arguments:
        rights.read.add(_escaped(thing.name))
        rights.write.add(_exchange(str(thing.arguments[key])))


def _waits(name: str, prefix: str) -> bool:
    return re.fullmatch(_delays(prefix), name) is not None


def _delays(prefix: str) -> str:
    return rf"{_escaped(prefix)}\.{_DELAY}"


def _exchange(name: str) -> str:
    return _escaped(name or DEFAULT_EXCHANGE)


def _escaped(name: str) -> str:
    return _SPECIAL.sub(r"\\\1", name)


def _anchored(names: Iterable[str]) -> str:
    every = sorted(names)
    return f"^({'|'.join(every)})$" if every else NOTHING


def _quoted(word: str) -> str:
    """Quote a word for a shell; expressions always."""
    return shlex.quote(word) if not word.startswith("^") else "'" + word.replace("'", "'\"'\"'") + "'"
