"""Slips of the keyboard."""
