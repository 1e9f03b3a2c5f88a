"""What operators' verbs do on a RabbitMQ broker: browse, tap, inspect, move, recreate and delete queues."""
