"""Resources, and handlers whose parameters have other names than these."""


def open_database() -> list[str]:
    return []


def open_carrier() -> list[str]:
    return []


def open_audit() -> list[str]:
    return []


def ship(order: dict, carier: list[str] | None = None) -> None:
    """Ship an order."""


def track(parcel: dict, audit: list[str]) -> None:
    """Track a parcel."""
