"""Each unit test starts with the same log, whatever ran before it in its process."""

import io

import pytest

from runner import log


@pytest.fixture(autouse=True)
def _log() -> None:
    """Configure the log into memory: what a test needs of it must not come from a test that ran earlier."""
    log.configure(format="json", stream=io.StringIO())
