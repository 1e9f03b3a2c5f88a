"""Engine: the in-process broker. It runs the same topology as RabbitMQ, with the same `x-` arguments, in memory."""

from runner.transports.memory.broker import MemoryBroker
from runner.transports.memory.transport import MemoryTransport

__all__ = ["MemoryBroker", "MemoryTransport"]
