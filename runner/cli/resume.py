"""`runner resume`."""

from runner.cli.pause import resume as command

__all__ = ["command"]
