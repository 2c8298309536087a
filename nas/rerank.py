"""Expand and rerank: of many architectures that could be scored next, pick those that are expected to be worth it.

After [Chuang2023]_, who expand queries: generate many, rank them by a model of the rank order of outcomes, and take
the first. What it has learnt is tested on everything newly scored, and as long as it could not tell the order, it
stands aside and the algorithm proposes what it would without it.

.. [Chuang2023] Chuang, Fang, Li, Yih, Glass, "Expand, Rerank, and Retrieve", Findings of ACL 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import moocore
import numpy as np
from numpy.typing import NDArray
from pymoo.core.population import Population
from threadpoolctl import threadpool_limits

from nas.encoding import Encoding
from nas.picking import Box, Picks, pick_by_band, pick_by_volume
from nas.problem import ArchitectureProblem
from nas.ranker import BANDS, Ranker, Scored, normal_scores
from nas.scoring import threads
from spaces import Genotype

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

EXPLORED = 0.125
"""Share of each batch that is not what the ranker likes best: at random, or what its members disagree about most."""

TELLING = 0.5
"""Kendall's tau from which on values tell enough for all others to be picked by hypervolume. Below, it is a part of
them, and the rest is picked by cost bands, for which ranks are enough. Half of what is picked by hypervolume has it
measured from the worst of the first results, half from the reference of the problem if it has one."""

STRICTNESS = 4
"""Power by which that share falls with how well values are predicted compared with ranks."""

SMALLEST = 0.5
"""A batch is at least so much of a generation, and at most all of it."""

INFORMED = 1 / 16
"""Between these it is so much of what is known: few results are soon worth learning from again."""

LEAST = 10
"""Sound results from which on it ranks, and newly scored ones from which on it may stand aside."""

TRUSTED = 0.2
"""Kendall's tau below which it stands aside."""

JUDGED = 50
"""Architectures that the mean tau of the last batches, whole ones, is over at least if there are so many."""

KEPT = 2
"""Where there are more candidates than mating proposes, this part of as many is kept: those that are expected to be
dominated least."""


@dataclass(frozen=True)
class Ranked:
    """How well one batch was ranked; ``pandas.DataFrame(algorithm.reranker.log())`` makes a table of them.

    Attributes:
        scored: Results that it had learnt from.
        batch: Architectures that were scored since, of which it had expected something.
        tau: Kendall's tau of their expected and their actual order among architectures of like cost, the mean over
            the objectives that are not computed; NaN if there was nothing to compare.
        aside: Whether it stood aside for this batch.
    """

    scored: int
    batch: int
    tau: float
    aside: bool


class Reranker:
    """Picks among candidates by what it learns of all results.

    Args:
        problem: Space and objectives; static objectives are computed and not predicted.
        expand: Candidates per architecture that is picked, at least 2.
        whole: Whether batches are always generations.

    Attributes:
        trace: How well each batch was ranked.
        asked: Individuals that were asked for and not yet learnt from.
    """

    def __init__(self, problem: ArchitectureProblem, expand: int, *, whole: bool = False) -> None:
        self.expand = expand
        self._whole = whole
        self.asked = Population.empty()
        self.trace: list[Ranked] = []
        self._problem = problem
        self._encoding = Encoding(problem.space)
        computed = problem.foretell([])[1]
        self._predicted = np.flatnonzero(~computed)
        cost = int(np.flatnonzero(computed)[0]) if computed.any() else None
        self._ranker = Ranker(self._encoding, problem.n_obj, cost, self._predicted.tolist())
        self._results: dict[Genotype, tuple[Floats, float]] = {}
        self._expected: dict[Genotype, tuple[Floats, Floats]] = {}  # scores, and those of what was known, left out
        self._worst: Floats | None = None
        self._given = problem.minimised_reference()
        self._aside = False
        self._fitted_to = 0

    def batch(self, generation: int) -> int:
        """Return how many to pick before learning again, of as many as a generation has.

        All of them while it cannot rank, stands aside, or if batches are always whole.
        """
        sound = sum(violation <= 0 for _, violation in self._results.values())
        if self._whole or self._aside or sound < LEAST:
            return generation
        return min(max(math.ceil(SMALLEST * generation), int(INFORMED * len(self._results))), generation)

    def expect(self, individuals: Population) -> None:
        """Take individuals that are to be learnt from once they are evaluated."""
        self.asked = Population.merge(self.asked, individuals)

    def catch_up(self) -> None:
        """Learn from what is evaluated of all that was picked."""
        evaluated = np.array(["F" in individual.evaluated for individual in self.asked], dtype=bool)
        self.learn(self.asked[evaluated])
        self.asked = self.asked[~evaluated]

    def learn(self, population: Population) -> None:
        """Take evaluated individuals; those that are known are passed over."""
        architectures = [self._problem.space.decode(individual.X) for individual in population]
        fresh = {a: i for a, i in zip(architectures, population, strict=True) if a not in self._results}
        if not fresh:
            return
        known = self._scored()
        for architecture, individual in fresh.items():
            violation = float(individual.CV[0])
            self._results[architecture] = (np.array(individual.F, dtype=np.float64), violation)
        foreseen = sum(architecture in self._expected for architecture in fresh)
        if foreseen:
            self.trace.append(Ranked(len(known.X), foreseen, self._tau(known, list(fresh)), self._aside))
            self._aside = _recent(self.trace) < TRUSTED

    def log(self) -> list[dict[str, float | int | bool | None]]:
        """Return the trace as plain values that JSON can hold, tau being None where there was nothing to compare."""
        self.catch_up()
        rows = [asdict(batch) for batch in self.trace]
        return [{**row, "tau": row["tau"] if np.isfinite(row["tau"]) else None} for row in rows]

    def _scored(self) -> Scored:
        """Return all that is known, in the order in which it was learnt."""
        count, n_obj = len(self._results), self._problem.n_obj
        X = self._encoding(list(self._results))
        F = np.array([objectives for objectives, _ in self._results.values()]).reshape(count, n_obj)
        return Scored(X, F, np.array([violation for _, violation in self._results.values()]))

    def _tau(self, known: Scored, fresh: Sequence[Genotype]) -> float:
        """Return how well the order of new results among known ones of like cost was expected, and forget what was.

        Both are expected without having been learnt from, by what had been learnt when the new ones were picked.
        """
        rows = [row for row, architecture in enumerate(fresh, len(known.X)) if architecture in self._expected]
        expected = [self._expected.pop(architecture) for architecture in fresh if architecture in self._expected]
        now = self._scored().ranks
        agreeing = []
        for k in self._predicted.tolist():
            costs = self._ranker.costs(now, k)
            for row, (scores, left_out) in zip(rows, expected, strict=True):
                before = now[: len(left_out)]
                size = max(len(before) // BANDS, min(len(before), BANDS))
                apart = np.abs(costs[: len(before)] - costs[row])
                like = np.flatnonzero(apart <= np.partition(apart, size - 1)[size - 1])
                actual, guessed = np.sign(before[like, k] - now[row, k]), np.sign(left_out[like, k] - scores[k])
                agreeing.append((actual * guessed)[actual != 0])
        pairs = np.concatenate(agreeing) if agreeing else np.zeros(0)
        return float(pairs.mean()) if len(pairs) else float("nan")

    def pick(
        self,
        candidates: Sequence[Genotype],
        count: int,
        rng: np.random.Generator,
        owners: Rows | None = None,
    ) -> list[int]:
        """Return which candidates to score, rows of them, up to ``count``.

        Args:
            candidates: Different architectures without results, those first that the algorithm itself would take.
            count: How many to pick.
            rng: Source of all that is drawn.
            owners: Who would take each candidate, ``(n,)``; each takes one at most.
        """
        if not candidates:
            return []
        picks = Picks(np.arange(len(candidates)) if owners is None else owners)
        with threadpool_limits(1), threads(1):  # their number changes the last bits of sums
            expected = self._pick(picks, candidates, count, rng)
            left_out = self._ranker.left_out() if len(expected) else expected
        if len(expected):
            self._expected |= {candidates[row]: (expected[row], left_out) for row in picks.taken}
        return picks.taken

    def _pick(self, picks: Picks, candidates: Sequence[Genotype], count: int, rng: np.random.Generator) -> Floats:
        """Pick up to ``count`` candidates, and return the scores of all, ``(n, n_obj)``, or none if it has none."""
        scored = self._scored()
        first = np.arange(len(candidates), dtype=np.float64)
        explored = int(EXPLORED * count + rng.random())
        expected = np.empty((0, scored.F.shape[1]))
        if scored.sound.sum() >= LEAST:
            if self._worst is None:
                self._worst = scored.F[scored.sound].max(axis=0)
            if self._fitted_to < len(scored.X):
                self._fitted_to = len(scored.X)
                self._ranker.fit(scored, rng)
            pending = [self._problem.space.decode(individual.X) for individual in self.asked]
            every = [*candidates, *pending]
            scores, spread = self._ranker.predict(self._encoding(every))
            F = self._values(scored, scores, every)
            known = np.vstack([scored.F[scored.sound], F[len(candidates) :]])
            scores, spread, F = (values[: len(candidates)] for values in (scores, spread, F))
            expected = scores
            if not self._aside:
                if len(candidates) > self.expand * count:
                    order = np.argsort(moocore.pareto_rank(scores), kind="stable")
                    picks.free[order[self.expand * count // KEPT :]] = False
                for _ in range(explored):
                    doubt = -spread.sum(axis=1) if rng.random() < 0.5 else rng.random(len(candidates))
                    picks.take_least(doubt)
                self._pick_best(picks, scores, F, known, count, rng)
        while len(picks.taken) < count and picks.free.any():
            picks.take_least(first)
        return expected

    def _pick_best(
        self, picks: Picks, scores: Floats, F: Floats, known: Floats, count: int, rng: np.random.Generator
    ) -> None:
        """Pick what is expected to be best, up to ``count`` in all, beside what is known, ``(m, n_obj)``."""
        assert self._worst is not None
        rest = count - len(picks.taken)
        if scores.shape[1] == 1:
            for _ in range(rest):
                picks.take_least(scores[:, 0])
            return
        best = np.minimum(known.min(axis=0), F.min(axis=0))
        trust, tau = self._ranker.of_values(self._predicted)
        number = round(trust**STRICTNESS * min(tau / TELLING, 1.0) * rest)
        for reference, part in ((self._worst, number // 2), (self._given, number - number // 2)):
            box = Box(self._worst if reference is None else reference, best)
            pick_by_volume(picks, F, known, box, part, rng)
        eligible = np.flatnonzero((self._worst > F).all(axis=1))
        rows = eligible if picks.free[eligible].sum() >= count else np.arange(len(F))
        pick_by_band(picks, scores, self._ranker.cost, rows, count - len(picks.taken), rng)

    def _values(self, scored: Scored, scores: Floats, candidates: Sequence[Genotype]) -> Floats:
        """Return what candidates are expected to be in units of the objectives, and compute what can be computed.

        The scores of what is computed are overwritten by those of its values.
        """
        foretold, computed = self._problem.foretell(candidates)
        F = np.empty_like(scores)
        known = normal_scores(scored.ranks)
        for k in range(scores.shape[1]):
            order = np.argsort(scored.F[scored.sound, k], kind="stable")
            values, at = scored.F[scored.sound, k][order], known[scored.sound, k][order]
            if computed[k]:
                F[:, k] = foretold[:, k]
                scores[:, k] = _interpolate(F[:, k], values, at)
            else:
                F[:, k] = _interpolate(scores[:, k], at, values)
        return F


def _recent(trace: Sequence[Ranked]) -> float:
    """Return the mean tau of the last batches in which there was something to compare, infinite if those are few."""
    sizes, taus = 0, 0.0
    for batch in reversed(trace):
        if np.isfinite(batch.tau):
            sizes, taus = sizes + batch.batch, taus + batch.batch * batch.tau
        if sizes >= JUDGED:
            break
    return taus / sizes if sizes >= LEAST else math.inf


def _interpolate(x: Floats, known: Floats, values: Floats) -> Floats:
    """Return values at x between known ones in ascending order, before the first on the line of the first tenth."""
    found = np.interp(x, known, values)
    end = min(max(3, len(known) // 10), len(known) - 1)
    run = known[end] - known[0]
    slope = (values[end] - values[0]) / run if run > 0 else 0.0
    beyond: Floats = np.where(x < known[0], values[0] + slope * (x - known[0]), found)
    return beyond
