"""What a `Publish` takes and refuses: the same bounds as `to:` in the YAML."""

from __future__ import annotations

import pickle
import re
from datetime import timedelta
from typing import Any

import pytest

from runner import Publish
from runner.message import PublishOptions


def test_durations_are_texts_or_timedeltas() -> None:
    made = Publish(1, to="q", delay="2h", expires=timedelta(days=1), priority=5, id="r-17")
    assert made.options == PublishOptions(7200.0, 86_400.0, 5)
    assert made.id == "r-17"
    assert pickle.loads(pickle.dumps(made)) == made
    assert made != Publish(1, to="q", delay="2h", expires="1d", priority=5, id="r-18")
    assert "r-17" in repr(made)


def test_without_options_there_are_none() -> None:
    assert Publish(1).options is None
    assert repr(Publish(1)) == "Publish(1, to=None, key=None, headers={})"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"delay": 30}, "delay: must be a duration with a unit"),
        ({"delay": "-2h"}, "delay: must be a duration, as in \"2h\", not '-2h'"),
        ({"delay": timedelta(seconds=-1)}, "delay: must be a duration from 0ms to 365d"),
        ({"delay": "366d"}, "delay: must be a duration from 0ms to 365d, not 366d"),
        ({"delay": "soon"}, "delay: must be a duration"),
        ({"expires": "0s"}, "expires: must be a duration from 1ms to 365d"),
        ({"expires": 1.5}, "expires: must be a duration with a unit"),
        ({"expires": "400d"}, "expires: must be a duration from 1ms to 365d"),
        ({"priority": 256}, "priority: must be a whole number from 0 to 255, not 256"),
        ({"priority": -1}, "priority: must be a whole number from 0 to 255, not -1"),
        ({"priority": True}, "priority: must be a whole number from 0 to 255, not True"),
        ({"priority": "5"}, "priority: must be a whole number from 0 to 255, not '5'"),
    ],
)
def test_what_no_broker_takes_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(text)):
        Publish(1, **options)
