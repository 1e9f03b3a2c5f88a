"""What is said of each line of RabbitMQ."""

import pytest

from runner.transports.rabbitmq.broker_features import CONSUMER_TIMEOUT, features_of


@pytest.mark.parametrize(
    ("line", "features"),
    [
        ((0, 0), ()),  # the broker says no version, or one that is no number
        ((3, 10), ()),
        ((3, 13), ()),
        ((4, 0), ("2 quorum priorities",)),
        ((4, 2), ("2 quorum priorities",)),
        ((4, 3), ("consumer timeouts", "32 quorum priorities", "uncounted returns")),
        ((5, 0), ("consumer timeouts", "32 quorum priorities", "uncounted returns")),
    ],
)
def test_each_line_has_its_features(line: tuple[int, int], features: tuple[str, ...]) -> None:
    assert features_of(line) == features
    assert CONSUMER_TIMEOUT.is_in(line) == (CONSUMER_TIMEOUT.name in features)
