"""Imports a module that imports this one."""

from circle_two import pack

ship = pack
