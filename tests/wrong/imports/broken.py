"""Fails while it is imported."""

raise RuntimeError("the shop is closed")
