"""RabbitMQ, the distributed engine. aio-pika lives here and nowhere else."""

from runner.transports.rabbitmq.transport import RabbitTransport

__all__ = ["RabbitTransport"]
