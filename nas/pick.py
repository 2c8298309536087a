"""``nas pick``: one architecture of a run, and what taking it gives up next to its neighbours on the front."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from evaluators import Sense
from nas.constraints import Constraint, violations
from nas.decision import knee, least_regret, nearest_weights, neighbours, shares
from nas.results import with_test
from spaces import InputError

if TYPE_CHECKING:
    from nas.run import Run

_BOUND = re.compile(r"([^<>=]+)(>=|<=)([^<>=]+)")
_KNEE_RULE = "knee"
_RULES = (
    'knee, weights:0.7,0.3, asf:0.7,0.3, bounds with a goal such as "accuracy>=0.9,min:energy_mj" or '
    '"accuracy>=0.9,knee", reference, or a key'
)

REFERENCE_KEY = "reference"
"""What stands for the key of the architecture that a space names to compare with."""


@dataclass(frozen=True)
class Neighbour:
    """A member of the front next to what is picked.

    Attributes:
        key: Architecture.
        metrics: Its objectives.
        gains: By how much it is better than what is picked, in the unit of each objective in which it is.
        losses: By how much it is worse, in the unit of each objective in which it is.
    """

    key: str
    metrics: Mapping[str, float]
    gains: Mapping[str, float]
    losses: Mapping[str, float]


@dataclass(frozen=True)
class Pick:
    """An architecture that is picked.

    Attributes:
        key: Architecture.
        rule: What it was picked by, as it was asked for.
        reason: Why it is this one.
        metrics: All its metrics, objectives first, ``test_`` ones behind them where it was scored on the test split.
        objectives: Objectives in order.
        on_front: Whether no other feasible evaluation dominates it.
        neighbours: Members of the front next to it: for each objective the nearest one that is better in it.
    """

    key: str
    rule: str
    reason: str
    metrics: Mapping[str, float]
    objectives: tuple[str, ...]
    on_front: bool
    neighbours: tuple[Neighbour, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    def frame(self) -> pd.DataFrame:
        """Return one row for the pick and one per neighbour.

        Columns: ``role`` (picked or neighbour), ``key``, the objectives, and ``change_`` with an objective behind it:
        what it changes by from the pick to the neighbour, in its unit.
        """
        objectives = self.objectives
        rows: list[dict[str, Any]] = [{"role": "picked", "key": self.key, **_some(self.metrics, objectives)}]
        for each in self.neighbours:
            change = {f"change_{name}": each.metrics[name] - self.metrics[name] for name in objectives}
            rows.append({"role": "neighbour", "key": each.key, **each.metrics, **change})
        columns = ["role", "key", *objectives, *(f"change_{name}" for name in objectives)]
        return pd.DataFrame(rows, columns=columns)

    def describe(self) -> list[str]:
        """Return in lines what is picked and why, and what each neighbour would give and take."""
        place = "on the front" if self.on_front else "not on the front"
        values = ", ".join(f"{name} {value:.5g}" for name, value in self.metrics.items())
        lines = [f"{self.key} ({place}): {self.reason}", values]
        if not self.neighbours:
            lines.append("it has no neighbours on the front")
        for each in self.neighbours:
            gains, losses = (
                " and ".join(_amount(name, value, self.metrics[name]) for name, value in changes.items())
                for changes in (each.gains, each.losses)
            )
            lines.append(f"{each.key} instead: {gains} better, " + (f"{losses} worse" if losses else "nothing worse"))
        return lines


def _some(values: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: values[name] for name in names}


def _amount(name: str, change: float, of: float) -> str:
    """Return an amount of an objective, with its share of what is picked if that is not 0."""
    share = f" ({change / abs(of):.1%})" if of else ""
    return f"{name} {change:.4g}{share}"


def pick(run: Run, select: str) -> Pick:
    """Return the feasible evaluation of a run that a rule picks.

    Args:
        run: With a front.
        select: ``knee``: the member of the front that it takes most to leave (:func:`nas.decision.knee`).
            ``weights:W1,W2,…``: the member whose pseudo-weights are the nearest, a weight per objective in order.
            ``asf:W1,W2,…``: the member whose largest weighted distance to the best of each objective is the least.
            ``METRIC>=BOUND,METRIC<=BOUND,…,min:METRIC`` or ``max:METRIC``: of the feasible evaluations within all
            bounds the best in the last metric. ``METRIC>=BOUND,…,knee``: the knee of those members of the front.
            ``reference``: what the space names to compare with. Anything else is a key, or how one begins.

    Raises:
        InputError: If nothing is feasible, the rule is none, nothing is within the bounds, or a key names nothing.
    """
    with run.reading_once():
        return _pick(run, select)


def _pick(run: Run, select: str) -> Pick:
    frame, front, objectives = run.evaluations(), run.front(), run.objectives
    if front.empty:
        raise InputError(
            f"a pick is from a front, and {run.folder} has none: {run.why_empty() or 'nothing is scored'}"
        )
    feasible = frame[frame["feasible"]].reset_index(drop=True)
    F = shares(front[list(objectives)].to_numpy(dtype=np.float64), _maximised(objectives))
    kind, colon, rest = select.strip().partition(":")
    if select.strip() == _KNEE_RULE:
        row, reason = front.iloc[knee(F)], _KNEE if len(front) > 2 else _FEW
    elif colon and kind == "weights":
        row, reason = front.iloc[nearest_weights(F, _weights(rest, objectives))], "its pseudo-weights are the nearest"
    elif colon and kind == "asf":
        row, reason = front.iloc[least_regret(F, _weights(rest, objectives))], _ASF
    elif is_rule(select):
        row, reason = _bounded(select, feasible, front, run.metrics, objectives)
    else:
        row, reason = _named(select.strip(), feasible, run), "as asked for"
    return _picked(run, select.strip(), reason, row, front)


def is_rule(select: str) -> bool:
    """Return whether something picks by a rule, and not by a key."""
    return select.strip() == _KNEE_RULE or any(sign in select for sign in "<>=:,")


_KNEE = "leaving it for any other member gives up most for what it gains"
_FEW = "a front of one or two members has no knee; its worst objective is the least bad"
_ASF = "its largest weighted distance to the best of each objective is the least"


def _maximised(objectives: Mapping[str, Sense]) -> list[bool]:
    return [sense == "max" for sense in objectives.values()]


def _weights(text: str, objectives: Mapping[str, Sense]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a weight per objective, summing to 1."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != len(objectives) or not all(0 <= v < math.inf for v in values) or not sum(values) > 0:
        raise InputError(
            f"weights must be {len(objectives)} numbers from 0, not all of them 0, one for each of "
            f"{list(objectives)}, got {text!r}"
        )
    return np.array(values) / math.fsum(values)


def _bounded(
    text: str, feasible: pd.DataFrame, front: pd.DataFrame, metrics: Sequence[str], objectives: Mapping[str, Sense]
) -> tuple[pd.Series, str]:
    """Return the best row within bounds, or the knee of the front there, and why it is that."""
    bounds, (sense, goal) = _parse(text, metrics)
    pool, what = (front, "members of the front") if sense == _KNEE_RULE else (feasible, "feasible evaluations")
    within = pool[violations(pool, bounds) == 0] if bounds else pool
    if within.empty:
        raise InputError(_unreachable(pool, bounds, what))
    kept = f"{len(within)} of {len(pool)} {what}"
    kept += f" with {' and '.join(map(_bound, bounds))}" if bounds else ""
    if sense == _KNEE_RULE:
        points = within[list(objectives)].to_numpy(dtype=np.float64)
        return within.iloc[
            knee(shares(points, _maximised(objectives)))
        ], f"of {kept}, {_KNEE if len(within) > 2 else _FEW}"
    order = [goal, *(name for name in objectives if name != goal)]
    ascending = [sense == "min", *(objectives[name] == "min" for name in order[1:])]
    row = within.sort_values([*order, "number"], ascending=[*ascending, True]).iloc[0]
    least = "least" if sense == "min" else "most"
    return row, f"the {least} {goal} of {kept}"


def _parse(text: str, metrics: Sequence[str]) -> tuple[list[Constraint], tuple[str, str]]:
    """Return the bounds of a rule, and its goal: min or max, and a metric, or a knee."""
    bounds, goals = [], []
    for part in (piece.strip() for piece in text.split(",")):
        found = _BOUND.fullmatch(part)
        sense, colon, metric = part.partition(":")
        if found:
            metric, value = found[1].strip(), _number(found[3])
            if value is None:
                raise InputError(f"a bound must be a finite number, as in accuracy>=0.9, got {part!r}")
            bounds.append(Constraint(metric, value, found[2] == "<="))
        elif part == _KNEE_RULE:
            goals.append((_KNEE_RULE, ""))
            continue
        elif colon and sense.strip() in ("min", "max"):
            metric = metric.strip()
            goals.append((sense.strip(), metric))
        else:
            raise InputError(f"--select must be {_RULES}; got {text!r}, of which {part!r} is neither bound nor goal")
        if metric not in metrics:
            raise InputError(f"--select must use the metrics {list(metrics)}, got {metric!r}")
    if len(goals) != 1:
        raise InputError(
            f"bounds go with one goal, as in accuracy>=0.9,min:energy_mj, got {len(goals)} goals in {text!r}"
        )
    return bounds, goals[0]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _bound(constraint: Constraint, value: str | None = None) -> str:
    return f"{constraint.metric}{'<=' if constraint.upper else '>='}{value or f'{constraint.bound:.10g}'}"


def _unreachable(feasible: pd.DataFrame, bounds: Sequence[Constraint], what: str) -> str:
    """Return that nothing is within bounds, and what comes nearest."""
    nearest = feasible.iloc[int(violations(feasible, bounds).argmin())]
    found = {each.metric: float(nearest[each.metric]) for each in bounds}
    offered = [
        replace(each, bound=found[each.metric]) if each.excess(found[each.metric]) else each for each in bounds
    ]
    values = ", ".join(f"{name} {value:.6g}" for name, value in found.items())
    return (
        f"none of {len(feasible)} {what} has {' and '.join(map(_bound, bounds))}; the nearest is "
        f"{nearest['key']} with {values}, which {','.join(map(_offer, offered))} would find"
    )


def _offer(constraint: Constraint) -> str:
    """Return a bound as one writes it, in six digits unless rounding would leave out the value that it is."""
    rounded = replace(constraint, bound=float(f"{constraint.bound:.6g}"))
    return _bound(rounded) if rounded.excess(constraint.bound) == 0 else _bound(constraint, repr(constraint.bound))


def _named(key: str, feasible: pd.DataFrame, run: Run) -> pd.Series:
    """Return the row of a key, of how one begins, or of what the space is compared with."""
    full = run.architecture(key).key if key else ""
    if key == REFERENCE_KEY:
        feasible = _feasible_reference(full, run)
    rows = feasible[feasible["key"] == full]
    if rows.empty:
        raise InputError(f"--select must be {_RULES} of a feasible evaluation of the search, got {key!r}")
    return rows.iloc[0]


def _feasible_reference(key: str, run: Run) -> pd.DataFrame:
    """Return the row of what the space is compared with, which has failed or breaks constraints else."""
    others = run.evaluations("reference")
    found = others[others["key"] == key]
    if not found["feasible"].any():
        reasons = found["failure"].dropna().tolist() or [
            f"it does not keep {' and '.join(map(str, run.constraints))}"
        ]
        raise InputError(f"a pick is feasible, but the reference {key} is not: {reasons[0]}; `nas pick` takes others")
    return with_test(found, run.evaluations("test") if run.test_columns else None, run.objectives)


def _picked(run: Run, rule: str, reason: str, row: pd.Series, front: pd.DataFrame) -> Pick:
    """Return a pick with its neighbours on the front."""
    objectives = run.objectives
    names, maximised = list(objectives), _maximised(objectives)
    points = front[names].to_numpy(dtype=np.float64)
    own = row[names].to_numpy(dtype=np.float64)
    scaled = shares(np.vstack([points, own]), maximised)
    found = []
    for index in neighbours(scaled[:-1], scaled[-1]):
        better = np.where(maximised, points[index] - own, own - points[index])
        gains = {name: float(by) for name, by in zip(names, better, strict=True) if by > 0}
        losses = {name: float(-by) for name, by in zip(names, better, strict=True) if by < 0}
        values = {name: float(value) for name, value in zip(names, points[index], strict=True)}
        found.append(Neighbour(str(front["key"].iloc[index]), values, gains, losses))
    on_front = front[front["key"] == row["key"]]
    ordered = dict.fromkeys([*names, *run.metrics])
    metrics = {name: float(row[name]) for name in ordered}
    tested = on_front.iloc[0] if len(on_front) else row
    metrics |= {name: float(tested[name]) for name in run.test_columns if pd.notna(tested.get(name))}
    return Pick(str(row["key"]), rule, reason, metrics, tuple(names), len(on_front) > 0, tuple(found))
