"""Runs pipelines, and a new version of them after each change of their files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from runner import app
from runner.app import Continued, StartupStep
from runner.errors import RunnerError
from runner.reload.changes import FileChanges
from runner.reload.version import Loader, Version, shown_files
from runner.system import System
from runner.tasks import cancel_and_wait, wait_set
from runner.transports.memory import MemoryBroker
from runner.units import pluralize

if TYPE_CHECKING:
    from runner.page.access import Access
    from runner.runtime.supervisor import RunReport

SETTLE_S = 0.2
"""What is wrong is reported only if no file changes within this time: an editor may have written half of a file."""

PATIENCE_S = 1.0
"""After this time a reload says that it waits."""

STORM = "changed after each of the last reloads, perhaps by a handler: ignored until another file changes"
WAITING = "waiting for a file to change"
KEPT = "the last good version goes on"


class Reloader:
    """Runs one version at a time. The next one starts when the one before has drained.

    A version that cannot be loaded leaves the one that runs alone. If a version cannot start, the last one that could
    runs again. The in-process broker and its messages outlive all versions, and so does the start of the producers: a
    finite producer that has ended runs again only if it has changed.
    """

    def __init__(
        self,
        loader: Loader,
        paths: Sequence[Path],
        stop: asyncio.Event,
        *,
        address: Callable[[System], tuple[str, int] | None],
        access: Access,
        on_step: Callable[[StartupStep], None],
        on_failure: Callable[[RunnerError], None],
    ) -> None:
        """`address` returns the HTTP address of a version, `access` says who may do what on the page."""
        self.changes = FileChanges(loader, paths)
        self.memory = MemoryBroker()
        self._loader = loader
        self._stop = stop
        self._address = address
        self._access = access
        self._on_step = on_step
        self._on_failure = on_failure
        self._start_id = uuid4().hex
        self._current: Version | None = None
        """The version that runs, or was started last."""
        self._good: Version | None = None
        """The last version that could start."""
        self._run: asyncio.Task[RunReport | None] | None = None
        self._run_stop = asyncio.Event()
        self._report: RunReport | None = None
        self._shown: dict[str, str] = {}

    @property
    def system(self) -> System | None:
        """The pipelines that run, or that were started last."""
        return self._current.system if self._current is not None else None

    async def run(self, changes: AsyncIterator[set[Path]]) -> RunReport | None:
        """Run until `stop` is set. Return the report with the totals of all versions; None if nothing ran."""
        watching = asyncio.create_task(self.changes.collect(changes), name="changes")
        try:
            await asyncio.sleep(0)  # files are watched before they are read
            await self._load_and_start(None)
            while not self._stop.is_set():
                await self._wait(watching)
                if self._run is not None and self._run.done():
                    self._note_end()
                elif self.changes.has_any.is_set() and not self._stop.is_set():
                    await self._reload()
        finally:
            await cancel_and_wait(watching)
            await self._end_run()
        return self._report

    async def _wait(self, watching: asyncio.Task[None]) -> None:
        """Wait for a change, for the end of the run, or for `stop`. Raises what ended the watching of files."""
        events = [asyncio.ensure_future(event.wait()) for event in (self._stop, self.changes.has_any)]
        running = [self._run] if self._run is not None else []
        await asyncio.wait([*events, *running, watching], return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait(*events)
        if watching.done():
            watching.result()

    async def _reload(self) -> None:
        """Load what has changed, and replace the version that runs."""
        clock = asyncio.get_running_loop().time
        files, is_forced = self.changes.take()
        if not is_forced and not files:
            return
        if not is_forced and self.changes.is_storm(files, clock()):
            self._say(f"{shown_files(files)}: {STORM}")
            return
        await self._load_and_start(files)
        self.changes.note_reload(clock())

    async def _load_and_start(self, files: set[Path] | None) -> None:
        """Load a version and start it; `files` have changed. Without them it is the first one."""
        started = asyncio.get_running_loop().time()
        try:
            version = await self._load(files)
        except KeyboardInterrupt:
            self._stop.set()
            return
        except RunnerError as error:
            self._on_failure(error)
            self._say(WAITING if self._run is None else KEPT)
            return
        await self._end_run()
        if not self._stop.is_set():
            self._start(version, None if files is None else self._line(files, version), started)

    async def _load(self, files: set[Path] | None) -> Version:
        """Load a version; once more if files have changed shortly after an attempt that failed. Raises RunnerError."""
        while True:
            try:
                return self._loader.load()
            except RunnerError:
                if files is None or not await wait_set(self.changes.has_any, SETTLE_S):
                    raise
            finally:
                self.changes.is_stale.set()
            files |= self.changes.take()[0]

    def _start(self, version: Version, line: str | None, since: float) -> None:
        """Start a version, whose line is shown when it runs. The one before has ended."""
        before, good = self._current, self._good
        modules = self._loader.modules.replace(version.modules)
        if before is not None:
            before.modules = modules  # with those that it has imported meanwhile
            self.memory.replace(before.system.topology, version.system.topology)
            self._note_unused(before.system, version.system)
        if good is not None and good is not version:
            version.rerun = version.changed_producers(good) | good.rerun
        self._current = version
        self._run_stop = asyncio.Event()
        running = app.up(
            version.system,
            self._run_stop,
            http=self._address(version.system),
            access=self._access,
            on_step=partial(self._note_step, version, line, since),
            continued=Continued(self.memory, self._start_id, version.rerun, is_first=line is None),
        )
        self._run = asyncio.create_task(running, name="version")

    def _note_step(self, version: Version, line: str | None, since: float, step: StartupStep) -> None:
        """Show the steps of the first start; of a later one what is different, and how long it took."""
        if step.name == "running":
            self._good = version
        if line is None or (step.name in ("page", "broker") and self._shown.get(step.name) != step.text):
            self._on_step(step)
        elif step.name == "running":
            self._say(line, asyncio.get_running_loop().time() - since)
        self._shown[step.name] = step.text

    def _note_end(self) -> None:
        """Run the last good version again when one could not start. Raises what is a bug in the runner."""
        run, self._run = self._run, None
        assert run is not None
        error = run.exception()
        if not isinstance(error, RunnerError):
            self._run = run
            run.result()
            self._stop.set()  # it has stopped by itself
            return
        self._on_failure(error)
        if self._good is None or self._good is self._current:
            self._say(WAITING)
        else:
            self._start(self._good, KEPT, asyncio.get_running_loop().time())

    async def _end_run(self) -> None:
        """Let the version that runs drain."""
        run, self._run = self._run, None
        if run is None:
            return
        self._run_stop.set()
        await asyncio.wait([run], timeout=PATIENCE_S)
        if not run.done() and not self._stop.is_set():
            self._say("the version before waits for its handlers to end")
        try:
            report = await asyncio.shield(run)
        except RunnerError as error:
            self._on_failure(error)
            return
        if report is None:
            return
        if not self._stop.is_set():
            for name, count in report.unfinished.items():
                self._say(f"{pluralize(count, 'handler')} of {name} did not end in time: the messages come back")
        if self._report is not None:
            report = replace(report, totals=self._report.totals + report.totals)
        self._report = report

    def _line(self, files: set[Path], version: Version) -> str:
        return " · ".join([shown_files(files) or "by hand", *version.differences(self._current)])

    def _note_unused(self, old: System, new: System) -> None:
        names = {queue.name for queue in new.topology.queues}
        for queue in old.topology.queues:
            found = self.memory.queue(queue.name)
            if queue.name not in names and found is not None and found.buffer:
                self._say(
                    f'queue "{queue.name}" is not used any more, and keeps {pluralize(len(found.buffer), "message")}'
                )

    def _say(self, text: str, seconds: float | None = None) -> None:
        self._on_step(StartupStep("reload", text, seconds))
