"""Operations: paths into loaded specs whose names are right, without importing anybody's code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.config.loading import Loaded, load_all
from runner.config.spec import PipelineSpec
from runner.errors import PipelineInvalid, Problem
from runner.pipeline.checks import check_names

Checked = tuple[Loaded, PipelineSpec]


def read_specs(paths: Sequence[Path], environ: Mapping[str, str]) -> list[Checked]:
    """Return each pipeline file with its spec. Raises PipelineInvalid with every problem of every file."""
    found: list[Checked] = []
    problems: list[Problem] = []
    for loaded in load_all(paths, environ):
        problems += loaded.problems
        if (spec := loaded.spec or loaded.salvaged) is not None:
            problems += check_names(loaded, spec)
        if loaded.spec is not None:
            found.append((loaded, loaded.spec))
    if any(problem.severity == "error" for problem in problems):
        raise PipelineInvalid(problems)
    return found
