"""What `runner up` reads before anything runs: the pipelines, and how their log lines look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.text_width import display_width

if TYPE_CHECKING:
    from runner.app import System
    from runner.errors import Problem
    from runner.page.access import Access


@dataclass(frozen=True)
class UpOptions:
    """What the command line asks for."""

    paths: tuple[Path, ...]
    environ: dict[str, str]
    broker: str | None
    management: str | None
    only: tuple[str, ...]
    until_idle: bool
    log_format: str | None
    log_level: str | None
    http: tuple[str, int] | None
    allow_actions: bool
    token: str | None = None
    """Of the page, where a master has made one for its workers."""

    def access(self) -> Access:
        """Return who may do what on the page. Raises WeakToken."""
        from runner.page.access import ENV_VARIABLE, Access, make_access

        if self.token is not None:
            return Access(self.token, self.allow_actions, is_new=True)
        return make_access(self.environ.get(ENV_VARIABLE), may_act=self.allow_actions, makes_token=self.allow_actions)


def load_pipelines(
    up_options: UpOptions, on_warnings: Callable[[Sequence[Problem]], None]
) -> tuple[System, dict[str, Any]]:
    """Return the pipelines, and arguments for `log.configure`. Raises PipelineInvalid and UnknownName."""
    from runner import app, log

    # Modules of handlers may bind a logger while they are imported, or print: both should be ours already.
    format: Any = up_options.log_format or "auto"
    log.configure(format=format, level=up_options.log_level or "info", capture_stdout=True)
    system = app.load(up_options.paths, up_options.environ, broker=up_options.broker)
    on_warnings(system.warnings)
    system = with_management(app.select(system, up_options.only), up_options.management)
    settings = system.pipelines[0].logging
    return system, {
        "format": up_options.log_format or settings.format,
        "level": up_options.log_level or settings.level,
        "levels": settings.levels,
        "width": min(24, max(map(display_width, system.names()))),
        "capture_stdout": True,
    }


def with_management(system: System, url: str | None) -> System:
    """Return the system with the address of the broker's management API."""
    pipelines = (replace(each, broker=replace(each.broker, management_url=url)) for each in system.pipelines)
    return replace(system, pipelines=tuple(pipelines))
