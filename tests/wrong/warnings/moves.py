"""A module that changes the current folder when it is imported."""

import os

os.chdir("/")


def ship(order: dict) -> None: ...
