"""Imports the module that imports this one."""

from circle_one import ship

pack = ship
