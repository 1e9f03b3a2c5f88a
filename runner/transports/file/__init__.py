"""Engine: the in-process broker with its messages in an SQLite file, so that they outlive the process."""

from runner.transports.file.broker import FileBroker
from runner.transports.file.transport import FileTransport

__all__ = ["FileBroker", "FileTransport"]
