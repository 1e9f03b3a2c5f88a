"""`runner dev` and `runner up --watch`: what they load, where the page is, and how they end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from runner.cli import event_loop
from runner.cli.environment import BadEnvironmentFile, ProcessEnvironment
from runner.cli.keys import Keys
from runner.cli.output import drain_when_output_lost, echo_failure, echo_problems, exit_process, wants_color
from runner.cli.signals import drain_on_signals
from runner.cli.up_run import UpOptions, echo_loaded, echo_nothing_ran, echo_step, echo_totals, load_pipelines
from runner.cli.watching import project_folders, require_watchfiles, watch
from runner.errors import RunnerError

if TYPE_CHECKING:
    from runner.app import StartupStep
    from runner.errors import Problem
    from runner.reload.reloader import Reloader
    from runner.system import System

PAGE_PORT = 9090

MUTED = ("broker.connected", "http.listening", "pipeline.draining", "pipeline.started", "pipeline.stopped")
"""Log events that `runner dev` does not write: each reload would repeat what the start-up lines say."""


def run_reloading(up_options: UpOptions, *, is_dev: bool) -> NoReturn:
    """Run pipelines until a signal, and reload them when their files change. Raises RunnerError.

    With `is_dev` there is always a page, on this machine only, and what is left in the queues at the end is no failure.
    """
    require_watchfiles()
    if not all(path.exists() for path in up_options.paths):
        load_pipelines(up_options, echo_problems)  # raises
    environment = click.get_current_context().obj
    event_loop.run_in_loop(_Run(up_options, environment, is_dev=is_dev).run())
    raise AssertionError("unreachable: the process has exited")


class _Run:
    """One run of the command."""

    def __init__(self, up_options: UpOptions, environment: ProcessEnvironment, *, is_dev: bool) -> None:
        self._up_options = up_options
        self._environment = environment
        self._is_dev = is_dev
        self._folder = os.getcwd()
        self._has_loaded = False
        self._logging: dict[str, Any] = {}
        self._warnings: list[Problem] = []
        self._addresses: dict[tuple[str, int], tuple[str, int]] = {}
        self._keys: Keys

    async def run(self) -> NoReturn:
        """Run, and exit."""
        from runner.reload.reloader import Reloader
        from runner.reload.version import Loader

        stop = asyncio.Event()
        loader = Loader(self._load, self._more_files)
        reloader = Reloader(
            loader,
            self._up_options.paths,
            stop,
            address=self._address,
            access=self._up_options.access(),
            on_step=self._show_step,
            on_failure=lambda error: self._keys.show(lambda: echo_failure(error)),
        )
        self._keys = Keys(reloader)
        is_memory = self._up_options.broker == "memory"
        drain_on_signals(stop, on_first=loader.interrupt, on_force=self._keys.close, is_memory=is_memory)
        with self._keys:
            changes = reloader.changes
            report = await reloader.run(watch(lambda: self._folders(reloader), changes.is_relevant, changes.is_stale))
        if report is None:
            echo_nothing_ran()
            exit_process(0)
        if self._is_dev:
            report.left_in_memory = 0
        is_memory = reloader.system is not None and reloader.system.broker.is_memory
        exit_process(echo_totals(report, is_memory=is_memory))

    def _show_step(self, step: StartupStep) -> None:
        self._keys.show(lambda: echo_step(step))
        if step.name == "running":
            self._keys.show(self._keys.echo_help)

    def _folders(self, reloader: Reloader) -> list[Path]:
        return [*project_folders(reloader.changes.roots()), *reloader.changes.file_folders()]

    def _more_files(self) -> Iterable[Path]:
        return [self._environment.file] if self._environment.file is not None else []

    def _load(self) -> System:
        """Load the pipelines as `runner up` does, with the environment as it is now. Raises RunnerError."""
        from runner import log

        try:
            os.chdir(self._folder)  # it may have been deleted and made again
            environ = self._environment.fill()
            system, self._logging = load_pipelines(replace(self._up_options, environ=environ), self._show_warnings)
        except BadEnvironmentFile as error:
            raise RunnerError(str(error)) from None
        except FileNotFoundError:
            raise RunnerError("the current folder is gone", "make it again") from None
        finally:
            if self._logging:
                is_colored = wants_color(os.isatty(1))
                muted = MUTED if self._is_dev else ()
                log.configure(
                    **self._logging, is_colored=is_colored, on_write_error=drain_when_output_lost, muted=muted
                )
        if not self._has_loaded:
            self._has_loaded = True
            echo_loaded(system)
        self._keys.note_system(system)
        return system

    def _show_warnings(self, warnings: Sequence[Problem]) -> None:
        """Show warnings, unless the last version that was loaded had the same ones."""
        if list(warnings) != self._warnings:
            self._warnings = list(warnings)
            self._keys.show(lambda: echo_problems(warnings))

    def _address(self, system: System) -> tuple[str, int] | None:
        """Return the address of the page: the same for all versions that ask for the same one."""
        from runner.app import StartupStep

        configured = next((each.http for each in system.pipelines if each.http is not None), None)
        wanted = self._up_options.http or configured
        if self._is_dev and self._up_options.http is None:
            has_producers = any(producer.http_path for each in system.pipelines for producer in each.producers)
            is_installed = find_spec("aiohttp") is not None and find_spec("prometheus_client") is not None
            if not (configured or has_producers or is_installed):
                step = StartupStep("page", 'install it: pip install "mqrunner[http]"')
                self._keys.show(lambda: echo_step(step))
                return None
            wanted = ("127.0.0.1", configured[1] if configured else 8080 if has_producers else PAGE_PORT)
        if wanted is None:
            return None
        if wanted not in self._addresses:
            is_free = self._up_options.http is None and self._is_dev
            self._addresses[wanted] = _usable(wanted, may_differ=is_free)
        return self._addresses[wanted]


def _usable(address: tuple[str, int], *, may_differ: bool) -> tuple[str, int]:
    """Return an address with a port that stays the same over reloads; another one where it is taken and may differ."""
    host, port = address
    for candidate in (port, 0) if may_differ or port == 0 else ():
        with suppress(OSError), socket.create_server((host, candidate)) as server:
            return host, server.getsockname()[1]
    return address
