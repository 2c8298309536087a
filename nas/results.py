"""A run's results as DataFrames, and the hypervolume of its fronts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import moocore
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from evaluators import Sense
from nas.constraints import Constraint, violations
from nas.storage import DURATION, FAILURE, GENERATION, KEY, PARENTS, WORKER
from spaces import Space

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.PRUNED: "failed",
}

BEFORE = ("number", "key")
AFTERWARDS = ("generation", "parents", "state", "duration", "worker", "failure", "feasible", "is_pareto")
RESULT_COLUMNS = (*BEFORE, *AFTERWARDS)
"""Columns of the results beside genes and metrics, which stand between both parts."""


def evaluations_frame(
    trials: Sequence[FrozenTrial],
    space: Space,
    metrics: Sequence[str],
    objectives: Mapping[str, Sense],
    constraints: Sequence[Constraint] = (),
) -> pd.DataFrame:
    """Return one row per evaluation, in the order of submission.

    Columns: ``number, key``, one per gene (missing for layers that do not exist), one per metric (missing unless
    complete), ``generation``, ``parents`` (keys of what it was made from, with a space between), ``state``,
    ``duration`` in seconds, ``worker`` (``host:process`` that scored it), ``failure`` (reason), ``feasible`` (whether
    it is complete and keeps all constraints) and ``is_pareto`` (whether no other feasible one dominates it).
    """
    rows = [
        {
            "number": trial.number,
            "key": trial.user_attrs[KEY],
            **{column: trial.params.get(column) for column in space.columns},
            **{metric: _metric(trial, metric) for metric in metrics},
            "generation": trial.user_attrs[GENERATION],
            "parents": " ".join(trial.user_attrs.get(PARENTS, ())) or None,
            "state": STATES[trial.state],
            "duration": trial.user_attrs.get(DURATION),
            "worker": trial.user_attrs.get(WORKER),
            "failure": trial.user_attrs.get(FAILURE),
        }
        for trial in trials
    ]
    columns = [*BEFORE, *space.columns, *metrics, *AFTERWARDS[:-2]]
    frame = pd.DataFrame(rows, columns=columns)
    numbers = [name for name in space.columns if not isinstance(space.choices(name)[0], str)]
    for column in (*numbers, *metrics, "duration"):
        frame[column] = pd.to_numeric(frame[column])
    for column in ("parents", "worker", "failure"):  # of one kind, whether all, some or none of them are missing
        frame[column] = frame[column].astype(object).where(frame[column].notna(), None)
    complete = (frame["state"] == "complete").to_numpy()
    frame["feasible"] = frame["is_pareto"] = False
    frame.loc[complete, "feasible"] = violations(frame[complete], constraints) == 0
    points = frame.loc[frame["feasible"], list(objectives)].to_numpy(dtype=np.float64)
    frame.loc[frame["feasible"], "is_pareto"] = non_dominated(points, objectives)
    return frame


def _metric(trial: FrozenTrial, metric: str) -> float | None:
    return trial.user_attrs.get(metric) if trial.state == TrialState.COMPLETE else None


def non_dominated(points: NDArray[np.float64], objectives: Mapping[str, Sense]) -> NDArray[np.bool_]:
    """Return which of ``(n, n_obj)`` points in natural sense no other point dominates; equal ones all stay."""
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    if len(objectives) == 1:
        best = points.max() if "max" in objectives.values() else points.min()
        return np.asarray(points[:, 0] == best)
    maximise = [sense == "max" for sense in objectives.values()]
    return np.asarray(moocore.is_nondominated(points, maximise=maximise, keep_weakly=True), dtype=bool)


def front_frame(
    evaluations: pd.DataFrame, test: pd.DataFrame | None, objectives: Mapping[str, Sense]
) -> pd.DataFrame:
    """Return the non-dominated rows, best first by the first objective, with ``test_`` columns where re-scored.

    Args:
        evaluations: Frame of a search.
        test: Frame of the same architectures on the test split, perhaps empty; None if there is no such split.
        objectives: Objectives in order, each with its sense.
    """
    front = with_test(evaluations[evaluations["is_pareto"]], test, objectives)
    first, sense = next(iter(objectives.items()))
    front = front.sort_values([first, "number"], ascending=[sense == "min", True])
    return front.reset_index(drop=True)


def with_test(frame: pd.DataFrame, test: pd.DataFrame | None, objectives: Iterable[str]) -> pd.DataFrame:
    """Return rows with ``test_`` columns behind, where they were scored on the test split, if there is one."""
    if test is None:
        return frame
    return frame.join(test.set_index("key")[list(objectives)].add_prefix("test_"), on="key")


def why_empty(evaluations: pd.DataFrame, constraints: Sequence[Constraint]) -> str | None:
    """Return why the frame of a search has no front, and how near it came; None if it has one, or no results."""
    frame = evaluations[evaluations["state"] != "running"]
    if frame.empty or frame["feasible"].any():
        return None
    complete = frame[frame["state"] == "complete"]
    if complete.empty:
        return f"all {len(frame)} evaluations failed, the first with {frame['failure'].iloc[0]}"
    nearest = complete.iloc[int(violations(complete, constraints).argmin())]
    names = dict.fromkeys(constraint.metric for constraint in constraints)
    values = ", ".join(f"{name} {nearest[name]:.6g}" for name in names)
    return (
        f"none of {len(frame)} evaluations keeps {' and '.join(map(str, constraints))}; the nearest is "
        f"{nearest['key']} with {values}"
    )


def hypervolume(
    points: NDArray[np.float64], objectives: Mapping[str, Sense], reference: Mapping[str, float]
) -> float:
    """Return the hypervolume that points dominate, each objective in units of its reference (1 if that is 0).

    With accuracy above 0 and an energy below its reference, it is a share of that box, in [0, 1].

    Args:
        points: ``(n, n_obj)`` in natural sense; none gives 0.
        objectives: Objectives in order, each with its sense.
        reference: The worst value of each objective that counts.
    """
    if len(points) == 0:
        return 0.0
    minimised, limit = _to_minimise(points, objectives, reference)
    inside = minimised[(minimised < limit).all(axis=1)]
    return _volume(inside, limit) if len(inside) else 0.0


def _to_minimise(
    points: NDArray[np.float64], objectives: Mapping[str, Sense], reference: Mapping[str, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points ``(n, n_obj)`` and reference ``(n_obj,)`` in units of the latter, all to be minimised."""
    bound = np.array([reference[name] for name in objectives])
    scale = np.where(bound == 0, 1.0, np.abs(bound))
    sign = np.array([-1.0 if sense == "max" else 1.0 for sense in objectives.values()])
    return points * sign / scale, bound * sign / scale


def _volume(inside: NDArray[np.float64], limit: NDArray[np.float64]) -> float:
    """Return the hypervolume of one or more points ``(n, n_obj)`` that are all below a limit ``(n_obj,)``."""
    if len(limit) == 1:
        return float((limit - inside).max())
    return float(moocore.hypervolume(inside, ref=limit))


def hypervolume_curve(
    evaluations: pd.DataFrame, objectives: Mapping[str, Sense], reference: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return the hypervolume after each evaluation in the order of submission, ``(n,)``.

    Failed and infeasible ones count as evaluations and add nothing.
    """
    points = evaluations[list(objectives)].where(evaluations["feasible"]).to_numpy(dtype=np.float64)
    return hypervolume_growth(points, objectives, reference)


def hypervolume_growth(
    points: NDArray[np.float64], objectives: Mapping[str, Sense], reference: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return the hypervolume of the first, the first two, and so on of ``(n, n_obj)`` points, ``(n,)``.

    Args:
        points: In natural sense; one with a value that is not finite adds nothing.
        objectives: Objectives in order, each with its sense.
        reference: The worst value of each objective that counts.
    """
    growing = GrowingHypervolume(objectives, reference)
    return np.array([growing.add(point) for point in points], dtype=np.float64)


class GrowingHypervolume:
    """Hypervolume of points that come one by one.

    Args:
        objectives: Objectives in order, each with its sense.
        reference: The worst value of each objective that counts.
    """

    def __init__(self, objectives: Mapping[str, Sense], reference: Mapping[str, float]) -> None:
        self._objectives, self._reference = objectives, reference
        self._kept = np.empty((0, len(objectives)))
        self._value = 0.0

    def add(self, point: NDArray[np.float64]) -> float:
        """Return the hypervolume with one more point ``(n_obj,)`` in natural sense."""
        (minimised,), limit = _to_minimise(point[None], self._objectives, self._reference)
        counts = bool(np.all(np.isfinite(minimised) & (minimised < limit)))
        if counts and not (self._kept <= minimised).all(axis=1).any():  # else it adds nothing, which is quick to see
            self._kept = np.vstack([self._kept[~(minimised <= self._kept).all(axis=1)], minimised])
            self._value = max(self._value, _volume(self._kept, limit))
        return self._value
