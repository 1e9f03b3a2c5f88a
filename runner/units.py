"""Vocabulary: durations, sizes, rates and addresses as people write them, into numbers. Their only parser."""

from __future__ import annotations

import math
import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)(B|kB|MB|GB|KiB|MiB|GiB)")
_BYTES = {
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}

_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])")


def parse_duration(value: str | float) -> float:
    """Return seconds for `250ms`, `1s`, `5m`, `1h`, `2d`; a number is seconds already.

    Raises ValueError on anything else, on negative numbers, NaN and infinity.
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError(f'"{value}" is not a duration')
        return float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(f'"{value}" is not a duration')
    return float(value)


def parse_size(value: str) -> int:
    """Return bytes for `64kB`, `1MiB`, `512B`. Raises ValueError on anything else."""
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f'"{value}" is not a size')
    return int(float(match[1]) * _BYTES[match[2]])


def parse_rate(value: str) -> float:
    """Return how often per second `100/s`, `10/m`, `5/h` are. Raises ValueError on anything else."""
    match = _RATE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f'"{value}" is not a rate')
    return float(match[1]) / _SECONDS[match[2]]


def parse_address(value: str, *, lowest_port: int = 1) -> tuple[str, int]:
    """Return host and port for `127.0.0.1:9090` and `[::1]:9090`. Raises ValueError on anything else.

    With `lowest_port` 0 the port may be 0, which means any free one.
    """
    host, port = value.strip().rpartition(":")[::2]
    if not host.strip("[]") or not port.isdecimal() or len(port) > 5 or not lowest_port <= int(port) < 65_536:
        raise ValueError(f'"{value}" is not an address')
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or its address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    from ipaddress import ip_address  # not needed at most starts

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def format_duration(seconds: float) -> str:
    """Write seconds the way `parse_duration` reads them, in the largest unit that stays whole."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
