"""What several algorithms with several seeds found on one problem, as DataFrames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluators import Sense
from nas.contest import Trace
from nas.results import hypervolume_growth
from nas.statistics import attainment, effect_size, holm, median_to_reach, padded, quartiles, rank_test


@dataclass(frozen=True)
class Level:
    """The median hypervolume of an algorithm after some evaluations, which the others are to reach."""

    algorithm: str
    evaluations: int

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.evaluations}"


@dataclass(frozen=True)
class Comparison:
    """Searches by several algorithms, the first of which is what the others are tested against.

    Attributes:
        traces: What each search proposed; as many per algorithm.
        objectives: Objectives in order, each with its sense.
        reference: Worst value of each objective that counts.
        whole: Hypervolume that figures are a share of: that of a whole table, else 1.
        evaluations: Budget of each search. One that ends early keeps what it has.
        level: What is to be reached.
        settings: Recipe, seeds, command, versions: plain values.
    """

    traces: tuple[Trace, ...]
    objectives: Mapping[str, Sense]
    reference: Mapping[str, float]
    whole: float
    evaluations: int
    level: Level
    settings: Mapping[str, Any]

    @property
    def algorithms(self) -> list[str]:
        """Names in order."""
        return list(dict.fromkeys(trace.algorithm for trace in self.traces))

    def runs(self, algorithm: str) -> list[Trace]:
        """Return the searches of an algorithm in the order of the seeds."""
        return [trace for trace in self.traces if trace.algorithm == algorithm]

    @cached_property
    def hypervolumes(self) -> dict[str, NDArray[np.float64]]:
        """Hypervolume after each evaluation by algorithm, ``(seeds, evaluations)``."""
        grown = {
            algorithm: [hypervolume_growth(t.points, self.objectives, self.reference) for t in self.runs(algorithm)]
            for algorithm in self.algorithms
        }
        return {algorithm: padded(curves, self.evaluations) / self.whole for algorithm, curves in grown.items()}

    @property
    def level_value(self) -> float:
        """Hypervolume of the level."""
        return float(np.median(self.hypervolumes[self.level.algorithm][:, self.level.evaluations - 1]))

    @property
    def curves(self) -> pd.DataFrame:
        """Columns ``algorithm, seed`` (from 0), ``evaluations, hypervolume``; one row per evaluation."""
        frames = [
            pd.DataFrame(
                {
                    "algorithm": algorithm,
                    "seed": np.repeat(np.arange(len(curves)), self.evaluations),
                    "evaluations": np.tile(np.arange(1, self.evaluations + 1), len(curves)),
                    "hypervolume": curves.ravel(),
                }
            )
            for algorithm, curves in self.hypervolumes.items()
        ]
        return pd.concat(frames, ignore_index=True)

    @property
    def summary(self) -> pd.DataFrame:
        """One row per algorithm.

        Columns: ``algorithm``; ``q1, hypervolume, q3``, quartiles of the final hypervolume; ``reached``, how many
        searches reach the level; ``to_level``, the median of the evaluations that takes, missing if half of them
        never do; ``p``, of the U test of the final hypervolume against the first algorithm with Holm's correction;
        ``a12``, how likely a search ends above one of the first algorithm; ``distinct``, the median of different
        architectures; ``failed``, that of failed or infeasible evaluations.
        """
        first = next(iter(self.hypervolumes.values()))[:, -1]
        rows = []
        for algorithm, curves in self.hypervolumes.items():
            low, middle, high = quartiles(curves[:, -1])
            typical, reached = median_to_reach(curves, self.level_value)
            traces = self.runs(algorithm)
            rows.append(
                {
                    "algorithm": algorithm,
                    "q1": low,
                    "hypervolume": middle,
                    "q3": high,
                    "reached": reached,
                    "to_level": typical,
                    "p": rank_test(curves[:, -1], first),
                    "a12": effect_size(curves[:, -1], first),
                    "distinct": np.median([len(set(trace.keys)) for trace in traces]),
                    "failed": np.median([np.isnan(trace.points).any(axis=1).sum() for trace in traces]),
                }
            )
        frame = pd.DataFrame(rows)
        frame["p"] = [np.nan, *holm(frame["p"].to_numpy()[1:])]
        frame.loc[0, "a12"] = np.nan
        return frame

    @property
    def attainment(self) -> pd.DataFrame:
        """Corners of the attainment surfaces: ``algorithm, surface`` and two objectives; empty for other numbers."""
        columns = ["algorithm", "surface", *self.objectives]
        if len(self.objectives) != 2:
            return pd.DataFrame(columns=columns)
        rows = [
            (algorithm, surface, *corner)
            for algorithm in self.algorithms
            for surface, corners in attainment([t.points for t in self.runs(algorithm)], self.objectives).items()
            for corner in corners.tolist()
        ]
        return pd.DataFrame(rows, columns=columns)

    @property
    def timing(self) -> pd.DataFrame:
        """Median milliseconds per evaluation by algorithm and phase: ``algorithm, phase, wall_ms, cpu_ms``.

        Phases are ``ask`` and ``tell`` of the algorithm, and ``rest``, the answers included. Time of this process
        only: workers have their own.
        """
        rows = []
        for algorithm in self.algorithms:
            spent: dict[str, list[NDArray[np.float64]]] = {"ask": [], "tell": [], "rest": []}
            for trace in self.runs(algorithm):
                phases = {n: 1000 * np.array(s) / max(len(trace.keys), 1) for n, s in trace.seconds.items()}
                ask, tell = (phases.get(name, np.zeros(2)) for name in ("ask", "tell"))
                for name, value in {"ask": ask, "tell": tell, "rest": phases["search"] - ask - tell}.items():
                    spent[name].append(value)
            medians = {name: np.median(values, axis=0) for name, values in spent.items()}
            rows += [(algorithm, name, wall, processor) for name, (wall, processor) in medians.items()]
        return pd.DataFrame(rows, columns=["algorithm", "phase", "wall_ms", "cpu_ms"])
