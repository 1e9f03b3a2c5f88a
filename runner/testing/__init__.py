"""Tests of pipelines: the real pipeline on the in-process broker, with virtual time."""

from runner.testing.records import Record

__all__ = ["Record"]
