"""``nas status``: how far a run is, live or dead, from what its folder and its store say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from nas.folder import is_held
from nas.joining import drivers_that_joined
from nas.run import Run
from nas.soundness import IDLE

RECENT = 50
"""Results that the rate is of at most."""

State = Literal["at work", "finished", "stopped", "not begun"]


@dataclass(frozen=True)
class Status:
    """How far a search is.

    Attributes:
        state: ``at work`` while a process holds the folder, or leads the run in a store that others can reach;
            ``finished`` or ``stopped`` without one.
        evaluations: Results so far, failed ones included.
        budget: Evaluations in all.
        running: Proposals without a result: being scored, or lost with a process and to be scored again.
        failed: Evaluations that failed.
        reasons: How many failed for which reason, the most frequent first.
        rate: Results per second over the last ones, or None.
        seconds_left: Until the budget is spent at that rate; None if it is not at work.
        idle_share: Share of the workers' time in which they scored nothing, or None if it is not known.
        hypervolume: Of the search so far, or None without a reference.
        why: Why it ended, or None.
        joined: Drivers that share the work of the one that leads, if it is at work.
    """

    state: State
    evaluations: int
    budget: int
    running: int
    failed: int
    reasons: dict[str, int]
    rate: float | None
    seconds_left: float | None
    idle_share: float | None
    hypervolume: float | None
    why: str | None
    joined: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {**self.__dict__, "joined": list(self.joined)}


def status(folder: str | Path) -> Status:
    """Return how far the run of a folder is; a search that goes on is not disturbed.

    Raises:
        InputError: If the folder is not the one of a run, or its store is damaged.
    """
    return status_of(Run(folder))


def status_of(run: Run) -> Status:
    """Return how far a run is, as :func:`status` does."""
    frame = run.evaluations()
    counted = frame[frame["generation"] > 0]  # the others were taken by a warm start
    done = counted[counted["state"] != "running"]
    failures = done.loc[done["state"] == "failed", "failure"]
    live, why = is_held(run.folder) or run.leader() is not None, run.why_stopped()
    state: State = "at work" if live else "finished" if why else "stopped" if len(frame) else "not begun"
    rate = recent_rate(run.timeline()["completed"])
    left = run.config.search.evaluations - len(done)
    return Status(
        state,
        len(done),
        run.config.search.evaluations,
        len(counted) - len(done),
        len(failures),
        {str(reason): int(count) for reason, count in failures.value_counts().items()},
        rate,
        left / rate if rate and live and not why else None,
        run.attribute(IDLE),
        run.hypervolume() if run.reference else None,
        why,
        tuple(map(str, drivers_that_joined(run.folder))) if live else (),
    )


def recent_rate(completions: pd.Series) -> float | None:
    """Return the results per second of the last :data:`RECENT` of them in order, None for fewer than two moments."""
    moments = completions.iloc[-RECENT:]
    seconds = (moments.iloc[-1] - moments.iloc[0]).total_seconds() if len(moments) > 1 else 0.0
    return (len(moments) - 1) / seconds if seconds > 0 else None


def describe(found: Status) -> str:
    """Return a status in lines for people."""
    lines = [f"{found.state}: {found.evaluations} of {found.budget} evaluations"]
    if found.running:
        lines[0] += f", {found.running} {'being scored' if found.state == 'at work' else 'to be scored again'}"
    lines += [f"shared by {driver}" for driver in found.joined]
    if found.rate:
        lines.append(f"{found.rate:.3g} evaluations per second over the last ones")
    if found.seconds_left is not None:
        lines.append(f"{found.seconds_left:.0f} s left at that rate")
    if found.idle_share is not None:
        lines.append(f"workers idle {100 * found.idle_share:.1f} % of their time")
    if found.hypervolume is not None:
        lines.append(f"hypervolume {found.hypervolume:.4f}")
    if found.failed:
        lines.append(f"{found.failed} failed:")
        lines += [f"  {count} x {reason}" for reason, count in found.reasons.items()]
    if found.why:
        lines.append(found.why)
    elif found.state == "stopped":
        lines.append("go on with the same `nas search` command; what is done is not done again")
    return "\n".join(lines)
