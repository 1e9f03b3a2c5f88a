"""Fails in a function that is called while it is imported."""


def _half(number):
    return number / 0


HALF = _half(5)
