"""Counting once more what networks of a run do, for energy models that the search had not named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from evaluators import OperationCounts
from nas.evaluation import SplitName
from nas.scoring import Scorer, build_job
from spaces import InputError
from supernet.data import Split

if TYPE_CHECKING:
    from nas.run import Run


def count_operations(
    run: Run, keys: Sequence[str], images: int | None, calibration: int | None
) -> dict[str, OperationCounts]:
    """Return what evaluated architectures of a run do by key; arguments and errors are those of `Run.operations`."""
    architectures = run.networks(keys)
    job = build_job(run.config, run.data, run.supernet())
    splits: dict[SplitName, Split] = {"validation": job.splits["validation"].head(images)}
    job = replace(job, metrics=(), options={}, splits=splits, calibration=job.calibration.head(calibration))
    try:
        outcomes = Scorer(job).outcomes(architectures)
    except InputError:
        raise
    except (RuntimeError, MemoryError, ValueError, ArithmeticError) as error:
        raise InputError(f"operations cannot be counted: {type(error).__name__}: {error}") from error
    return {a.key: outcome.operations for a, outcome in zip(architectures, outcomes, strict=True)}
