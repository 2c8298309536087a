"""Two runs side by side: what each has evaluated, and whose front is ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluators import Sense
from nas.results import hypervolume
from spaces import InputError

if TYPE_CHECKING:
    from nas.run import Run


def compare_runs(run: Run, other: Run) -> pd.DataFrame:
    """Return one row per run: this one and the other.

    Columns: ``run`` (folder), ``evaluations``, ``failed``, ``infeasible``, ``front`` (members), ``hypervolume``
    (both against the reference of the first run), ``ahead`` (share of the other's front that a member of this one
    dominates), ``alone`` (architectures that only this one has evaluated), ``seconds`` of its search, and ``best_``
    with each objective behind it.

    Raises:
        InputError: If their objectives differ, or the first one has no reference point yet.
    """
    objectives, reference = run.objectives, run.reference
    if list(other.objectives.items()) != list(objectives.items()):
        raise InputError(
            f"runs are compared in the same objectives, but {run.folder} has {objectives} and {other.folder} has "
            f"{other.objectives}"
        )
    if reference is None:
        raise InputError(f"a comparison is with a run that has begun its search, and {run.folder} has not")
    names = list(objectives)
    frames = [each.evaluations() for each in (run, other)]
    fronts = [frame.loc[frame["is_pareto"], names].to_numpy(dtype=np.float64) for frame in frames]
    keys = [set(frame["key"]) for frame in frames]
    rows = []
    for mine, each in enumerate((run, other)):
        frame, front, theirs = frames[mine], fronts[mine], fronts[1 - mine]
        done = frame[frame["state"] != "running"]
        best = {
            f"best_{n}": (max if objectives[n] == "max" else min)(front[:, k], default=np.nan)
            for k, n in enumerate(names)
        }
        rows.append(
            {
                "run": str(each.folder),
                "evaluations": len(done),
                "failed": int((done["state"] == "failed").sum()),
                "infeasible": int(((done["state"] == "complete") & ~done["feasible"]).sum()),
                "front": len(front),
                "hypervolume": hypervolume(front, objectives, reference),
                "ahead": dominated_share(theirs, front, objectives),
                "alone": len(keys[mine] - keys[1 - mine]),
                "seconds": each.search_seconds(),
                **best,
            }
        )
    return pd.DataFrame(rows)


def dominated_share(points: NDArray[np.float64], by: NDArray[np.float64], objectives: dict[str, Sense]) -> float:
    """Return the share of points ``(n, n_obj)`` that one of others ``(m, n_obj)`` dominates, NaN without points."""
    if len(points) == 0:
        return float("nan")
    sign = np.array([-1.0 if sense == "max" else 1.0 for sense in objectives.values()])
    mine, theirs = points * sign, by * sign
    no_worse = (theirs[None] <= mine[:, None]).all(axis=2)
    better = (theirs[None] < mine[:, None]).any(axis=2)
    return float((no_worse & better).any(axis=1).mean())
