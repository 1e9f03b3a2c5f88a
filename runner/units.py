"""The only parsers of durations, sizes, rates, shares and addresses."""

from __future__ import annotations

import math
import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)(B|kB|MB|GB|KiB|MiB|GiB)")
_BYTES = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""The hosts that stand for all interfaces, and what reaches them from this machine."""

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")

_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smhd])")


def parse_duration(value: str | float) -> float:
    """Return the seconds of `250ms`, `1s`, `5m`, `1h` or `2d`. A number is in seconds.

    Raises ValueError for anything else, including negative numbers, NaN and infinity.
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError(f'"{value}" is not a duration, such as 250ms, 30s or 5m')
        return float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(f'"{value}" is not a duration, such as 250ms, 30s or 5m')
    return float(value)


def parse_size(value: str) -> int:
    """Return the bytes of `64kB`, `1MiB` or `512B`. Raises ValueError for anything else."""
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f'"{value}" is not a size')
    return int(float(match[1]) * _BYTES[match[2]])


def parse_rate(value: str) -> float:
    """Return the times per second of `100/s`, `10/m`, `5/h` or `20/d`. Raises ValueError for anything else."""
    match = _RATE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f'"{value}" is not a rate')
    return float(match[1]) / _SECONDS[match[2]]


def parse_share(value: str) -> float:
    """Return the share that `20%` is: 0.2. Raises ValueError on anything else, and on more than 100%."""
    match = _SHARE.fullmatch(value.strip())
    if match is None or float(match[1]) > 100:
        raise ValueError(f'"{value}" is not a share')
    return float(match[1]) / 100


def parse_address(value: str, *, lowest_port: int = 1) -> tuple[str, int]:
    """Return the host and port of `127.0.0.1:9090` or `[::1]:9090`. Raises ValueError for anything else.

    `lowest_port=0` allows port 0, which means any free port.
    """
    host, port = value.strip().rpartition(":")[::2]
    if (
        not host.strip("[]")
        or "/" in host
        or not port.isdecimal()
        or len(port) > 5
        or not lowest_port <= int(port) < 65_536
    ):
        raise ValueError(f'"{value}" is not an address')
    return host.strip("[]"), int(port)


def format_address(host: str, port: int) -> str:
    """Return an address as `parse_address` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is that of this machine's loopback interface."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    from ipaddress import ip_address  # rarely needed, and slow to import

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def format_duration(seconds: float) -> str:
    """Format seconds as `parse_duration` reads them, in the largest unit that is a whole number."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def pluralize(count: int, noun: str) -> str:
    """Return a count with its noun, as in `1 message` and `2 messages`."""
    return f"{count} {noun}{'s'[: count != 1]}"
