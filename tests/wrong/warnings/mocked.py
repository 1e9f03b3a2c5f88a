"""A handler that was replaced while trying."""

from unittest.mock import Mock

ship = Mock(return_value=None)
