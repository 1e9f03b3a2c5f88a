"""Needs a module that is not installed."""

import nothing_like_this_is_installed

ship = nothing_like_this_is_installed.ship
