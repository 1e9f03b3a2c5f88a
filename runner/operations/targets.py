"""What the verbs that look at a running broker have in common: there must be one, and a name must be known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runner.config.messages import did_you_mean
from runner.errors import RunnerError
from runner.pipeline.model import BrokerSettings, Pipeline


class NoLiveBroker(RunnerError):
    """The pipeline's broker is the in-process one, which no other process can look into."""

    exit_code = 2


class UnknownTarget(RunnerError):
    """A name on the command line is no queue, event or subscriber of the pipeline."""

    exit_code = 2


def require_live_broker(settings: BrokerSettings) -> None:
    """Raise NothingLive where there is no broker of its own."""
    if settings.is_memory:
        text = "the pipeline runs on the in-process broker: there is nothing live to look at"
        raise NoLiveBroker(text, "give --broker URL")


def unknown_target(name: str, what: str, known: Iterable[str]) -> UnknownTarget:
    """Return the error for a name that is none of the known ones."""
    return UnknownTarget(
        f'no {what} is called "{name}"', did_you_mean(name, known).replace("write one of", "there are")
    )


def ambiguous_target(name: str, pipelines: Iterable[str]) -> UnknownTarget:
    """Return the error for a name that means different things in several pipelines."""
    return UnknownTarget(f'"{name}" is not the same in {", ".join(pipelines)}', "name the file of one of them")


def pipeline_with_destination(pipelines: Sequence[Pipeline], name: str) -> Pipeline:
    """Return the one pipeline that has a queue or event of this name. Raises UnknownPlace."""
    found = [pipeline for pipeline in pipelines if name in pipeline.destinations]
    if len(found) > 1:
        files = ", ".join(pipeline.path for pipeline in found)
        raise UnknownTarget(f'{len(found)} pipelines have "{name}": {files}', "name the file of one of them")
    if not found:
        known = dict.fromkeys(target for pipeline in pipelines for target in pipeline.destinations)
        raise unknown_target(name, f"queue or event of {', '.join(pipeline.name for pipeline in pipelines)}", known)
    return found[0]
