"""Loads the pipeline files at the paths of a command line, as specs or as resolved pipelines.

All files are read before any is checked: one file may define what another one uses, or conflict with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from runner.config.loader import PipelineFile, load_all
from runner.config.overlays import Overlay
from runner.config.spec import PipelineSpec
from runner.errors import PipelineInvalid, Problem, has_errors
from runner.pipeline.flow_checks import peers
from runner.pipeline.module_search import ModuleSearch, module_searches
from runner.pipeline.resolver import Resolved, resolve
from runner.pipeline.spec_checks import check_names

CheckedSpec = tuple[PipelineFile, PipelineSpec]


def disabled_items(specs: Iterable[PipelineSpec]) -> list[str]:
    """Return the names of the producers and subscribers with `enabled: false`."""
    found: list[str] = []
    for spec in specs:
        found += (name for name, producer in spec.producers.items() if not producer.enabled)
        found += (name for name, subscriber in spec.subscribers.items() if not subscriber.enabled)
    return found


def read_specs(
    paths: Sequence[Path], environ: Mapping[str, str], overlays: Sequence[Overlay] = ()
) -> list[CheckedSpec]:
    """Return each pipeline file with its spec. Raises PipelineInvalid with every problem of every file."""
    found: list[CheckedSpec] = []
    problems: list[Problem] = []
    files = load_all(paths, environ, overlays)
    for loaded, together in zip(files, peers(files), strict=True):
        problems += check_names(loaded, together)[1]
        if loaded.spec is not None:
            found.append((loaded, loaded.spec))
    if has_errors(problems):
        raise PipelineInvalid(list(dict.fromkeys(problems)))  # those of an overlay are found in each pipeline
    return found


def resolve_all(
    paths: Sequence[Path],
    environ: Mapping[str, str],
    overlays: Sequence[Overlay] = (),
    *,
    imports: bool = True,
    handlers: bool = True,
    is_one_broker: bool = False,
) -> Iterator[tuple[PipelineFile, Resolved]]:
    """Yield each file with its resolved pipeline or problems. `is_one_broker`: all run on one broker (`--broker`).

    `imports` and `handlers` say what is imported, as in `resolve`.
    """
    files = load_all(paths, environ, overlays)
    known = peers(files, is_one_broker=is_one_broker)
    # The import path of a program that only publishes stays as it is, unless schemas must be imported.
    is_importing = not imports or handlers or any(map(_has_schemas, files))
    searches = module_searches(files) if is_importing else list(map(ModuleSearch, files))
    for loaded, modules, together in zip(files, searches, known, strict=True):
        yield loaded, resolve(loaded, imports=imports, handlers=handlers, modules=modules, together=together)


def _has_schemas(loaded: PipelineFile) -> bool:
    spec = loaded.spec or loaded.recovered
    if spec is None:
        return False
    queues, events = spec.queues.values(), spec.events.values()
    return any(queue.schema_ for queue in queues) or any(event.schema_ for event in events)
