"""Needs a name that its module does not have."""

from shop import warehouse

ship = warehouse
