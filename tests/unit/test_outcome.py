"""How a delivery ends is decided by one pure function."""

import pytest

from runner import Reject, RetryLater
from runner.outcome import ACK, DeadLetter, InvalidMessage, RemoteError, Retry, RetryPolicy, decide, flatten_errors

POLICY = RetryPolicy(attempts=3, delay_s=1.0)


class UnspeakableError(Exception):
    """Its own words cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_a_handler_that_returns_is_done() -> None:
    """No error: the message is acknowledged, whichever attempt it was."""
    assert decide(None, 1, POLICY) is ACK
    assert decide(None, 99, POLICY) is ACK


def test_a_failed_attempt_comes_back_until_the_last() -> None:
    """Attempts count the first try: the third of three is the last."""
    assert decide(ValueError("x"), 1, POLICY) == Retry(1.0, "ValueError", "x")
    assert decide(ValueError("x"), 2, POLICY) == Retry(2.0, "ValueError", "x")
    assert decide(ValueError("x"), 3, POLICY) == DeadLetter("exhausted", "ValueError", "x")
    assert decide(ValueError("x"), 4, POLICY) == DeadLetter("exhausted", "ValueError", "x")


def test_what_cannot_be_decoded_is_never_tried_again() -> None:
    """Trying again cannot mend a body."""
    assert decide(InvalidMessage("no JSON"), 1, POLICY) == DeadLetter("invalid", "InvalidMessage", "no JSON")
    assert decide(InvalidMessage("big", "too-large"), 1, POLICY) == DeadLetter("too-large", "InvalidMessage", "big")


def test_a_handler_can_reject() -> None:
    """Reject dead-letters at once, with the handler's own words."""
    assert decide(Reject("why"), 1, POLICY) == DeadLetter("rejected", "Reject", "why")


def test_a_handler_can_ask_for_a_delay_of_its_own() -> None:
    """RetryLater replaces the policy's delay, not its number of attempts."""
    assert decide(RetryLater("30s"), 1, POLICY) == Retry(30.0, "RetryLater", "the handler asked for it again after 30s")
    outcome = decide(RetryLater("30s"), 3, POLICY)
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "exhausted"


def test_retry_later_refuses_nonsense_where_it_is_written() -> None:
    """The mistake is in the handler, so the handler gets the error."""
    with pytest.raises(ValueError, match="not a duration"):
        RetryLater("soon")


def test_only_listed_exceptions_are_tried_again() -> None:
    """With `on`, everything else goes straight to the dead-letter queue; subclasses are listed too."""
    policy = RetryPolicy(attempts=5, only_on=(OSError,))
    assert isinstance(decide(ConnectionError(), 1, policy), Retry)
    assert decide(ValueError("x"), 1, policy) == DeadLetter("rejected", "ValueError", "x")
    assert decide(OSError("x"), 5, policy) == DeadLetter("exhausted", "OSError", "x")
    assert isinstance(decide(RetryLater(1), 1, policy), Retry)


def test_exceptions_in_not_on_are_never_tried_again() -> None:
    """They and their subclasses, also if `on` covers them; in a group, one of them is enough."""
    policy = RetryPolicy(attempts=5, only_on=(Exception,), not_on=(ArithmeticError,))
    assert isinstance(decide(KeyError(), 1, policy), Retry)
    assert decide(ZeroDivisionError("x"), 1, policy) == DeadLetter("rejected", "ZeroDivisionError", "x")
    assert isinstance(decide(ExceptionGroup("both", [KeyError(), ZeroDivisionError()]), 1, policy), DeadLetter)


def test_jitter_picks_one_of_the_delays_that_the_topology_has() -> None:
    """A delay that the handler asks for is exact."""
    policy = RetryPolicy(attempts=3, delay_s=1.0, jitter=0.5)
    assert decide(ValueError("x"), 2, policy, min) == Retry(1.0, "ValueError", "x")
    assert decide(ValueError("x"), 2, policy, max) == Retry(3.0, "ValueError", "x")
    assert decide(RetryLater(7), 1, policy, max) == Retry(7.0, "RetryLater", "the handler asked for it again after 7")
    drawn = {decide(ValueError("x"), 1, policy).after_s for _ in range(200)}  # type: ignore[union-attr]
    assert drawn == {0.5, 0.75, 1.0, 1.25, 1.5}


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (RetryPolicy(5, "exponential", 1.0, 300.0), (1.0, 2.0, 4.0, 8.0)),
        (RetryPolicy(5, "exponential", 1.0, 3.0), (1.0, 2.0, 3.0)),
        (RetryPolicy(4, "linear", 0.5, 300.0), (0.5, 1.0, 1.5)),
        (RetryPolicy(9, "fixed", 2.0, 300.0), (2.0,)),
        (RetryPolicy(1), ()),
        (RetryPolicy(2, "fixed", 10.0, 300.0, jitter=0.2), (8.0, 9.0, 10.0, 11.0, 12.0)),
        (RetryPolicy(2, "fixed", 10.0, 10.0, jitter=0.2), (8.0, 8.5, 9.0, 9.5, 10.0)),
        (RetryPolicy(3, "fixed", 0.0, 300.0, jitter=0.2), (0.0,)),
    ],
)
def test_a_policy_knows_all_its_delays(policy: RetryPolicy, delays: tuple[float, ...]) -> None:
    """The topology declares a wait queue for each of them, once."""
    assert policy.delays() == delays


def test_an_error_without_words_still_has_an_outcome() -> None:
    """An exception whose own text fails must not keep its message from being settled."""
    assert decide(UnspeakableError(), 1, POLICY) == Retry(1.0, "UnspeakableError", "")


def test_an_endless_error_text_is_cut() -> None:
    """Headers are small, and one long text must not end a connection."""
    outcome = decide(ValueError("x" * 1_000_000), 1, POLICY)
    assert isinstance(outcome, Retry)
    assert len(outcome.error) == 1024


class ArticleMissing(Reject):
    """A subclass with arguments of its own."""

    def __init__(self, article: str, warehouse: str) -> None:
        super().__init__(f"no {article} in {warehouse}")


class BankBusy(RetryLater):
    """A subclass that knows its delay."""

    def __init__(self) -> None:
        super().__init__("20s", "the bank is busy")


class Careless(RetryLater):
    """A subclass that has forgotten to say when."""

    def __init__(self) -> None:
        Exception.__init__(self, "some time")


class FanOutFailed(ExceptionGroup[Exception]):
    """A group of the user's own."""


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    """Return what a TaskGroup raises."""
    return ExceptionGroup("unhandled errors in a TaskGroup", errors)


ONLY_TIMEOUTS = RetryPolicy(attempts=3, delay_s=1.0, only_on=(TimeoutError,))


@pytest.mark.parametrize(
    ("error", "policy", "outcome"),
    [
        (group(TimeoutError("a")), ONLY_TIMEOUTS, Retry(1.0, "TimeoutError", "a")),
        (group(group(TimeoutError("a"))), ONLY_TIMEOUTS, Retry(1.0, "TimeoutError", "a")),
        (group(TimeoutError("a"), TimeoutError("a")), ONLY_TIMEOUTS, Retry(1.0, "TimeoutError", "a")),
        (
            group(TimeoutError("a"), TimeoutError("b")),
            ONLY_TIMEOUTS,
            Retry(1.0, "TimeoutError", "TimeoutError: a; TimeoutError: b"),
        ),
        (
            group(TimeoutError("a"), ValueError("b")),
            ONLY_TIMEOUTS,
            DeadLetter("rejected", "TimeoutError, ValueError", "TimeoutError: a; ValueError: b"),
        ),
        (
            group(ValueError("b"), group(ArticleMissing("a1", "w2"))),
            POLICY,
            DeadLetter("rejected", "ValueError, ArticleMissing", "ValueError: b; ArticleMissing: no a1 in w2"),
        ),
        (group(BankBusy()), ONLY_TIMEOUTS, Retry(20.0, "BankBusy", "the bank is busy")),
        (
            group(RetryLater("5s", "soon"), group(BankBusy()), TimeoutError("a")),
            ONLY_TIMEOUTS,
            Retry(
                20.0,
                "RetryLater, BankBusy, TimeoutError",
                "RetryLater: soon; BankBusy: the bank is busy; TimeoutError: a",
            ),
        ),
        (
            group(BankBusy(), ValueError("b")),
            ONLY_TIMEOUTS,
            DeadLetter("rejected", "BankBusy, ValueError", "BankBusy: the bank is busy; ValueError: b"),
        ),
        (Careless(), ONLY_TIMEOUTS, Retry(1.0, "Careless", "some time")),
        (
            FanOutFailed("x", [ValueError("b")]),
            RetryPolicy(only_on=(FanOutFailed,)),
            Retry(1.0, "ValueError", "b"),
        ),
        (group(ValueError("b")), RetryPolicy(only_on=(ExceptionGroup,)), Retry(1.0, "ValueError", "b")),
        (group(UnspeakableError()), POLICY, Retry(1.0, "UnspeakableError", "")),
    ],
)
def test_exception_groups_are_looked_into(error: Exception, policy: RetryPolicy, outcome: Retry | DeadLetter) -> None:
    """One Reject rejects, the longest delay is taken, `on` must list all; and each error is named."""
    assert decide(error, 1, policy) == outcome
    assert decide(RemoteError(flatten_errors(error)), 1, policy) == outcome  # the same as from another process


def test_a_group_on_the_last_attempt_is_exhausted() -> None:
    """Unless something in it rejects."""
    assert decide(group(BankBusy()), 3, POLICY) == DeadLetter("exhausted", "BankBusy", "the bank is busy")
    assert decide(group(BankBusy(), Reject("no")), 3, POLICY) == DeadLetter(
        "rejected", "BankBusy, Reject", "BankBusy: the bank is busy; Reject: no"
    )


def test_a_group_of_many_has_a_text_that_is_cut() -> None:
    """As one endless text is."""
    outcome = decide(group(*(ValueError(f"error number {n}") for n in range(10_000))), 1, POLICY)
    assert isinstance(outcome, Retry)
    assert outcome.error_type == "ValueError"
    assert len(outcome.error) == 1024
