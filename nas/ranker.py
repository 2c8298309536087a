"""What architectures not yet scored are expected to be, by the order of those that were.

Each objective is predicted in normal scores: the quantile of the standard normal distribution at the rank that an
architecture would have among all scored ones. It is predicted by

- a Gaussian process on normal scores of ranks,
- one on the values themselves or their logarithms, which tell more; what is far from all expectation is left out,
- and networks that learn from the order alone, once there is enough for them.

They count the more, the better they tell the order within cost bands of architectures that they have not learnt from
(Kendall's tau).

An architecture that failed has the worst rank, after those that violate constraints; neither has a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, norm, rankdata

from nas.encoding import Encoding
from nas.gaussian import GaussianProcess
from nas.rank_nets import RankNets
from nas.value_process import FormProcess, ValueProcess

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

BANDS, BAND_SIZE = 8, 15
"""Cost bands at most, and architectures of one at least."""

NEAREST = 400
"""Architectures that a Gaussian process predicts from at most: the least dominated ones and some of the others."""

ENOUGH = 64
"""Architectures from which on networks learn."""

SHARPNESS = 4.0
"""How fast a member counts less whose tau is behind that of the best one, in units of n^-1/2 of what it is judged by:
about one and a half standard errors of tau."""

LEAST_WEIGHT = 0.05
"""What a member has to count relative to the best one, to count at all."""

GROWTH = 1.2
"""Networks learn anew when there are so many times the architectures that they last learnt from."""


@dataclass(frozen=True)
class Scored:
    """Architectures with results.

    Attributes:
        X: Their vectors, ``(n, width)``.
        F: Objectives to minimise, which mean nothing where they are not sound, ``(n, n_obj)``.
        violation: By how much they violate constraints, most where they failed, 0 where they are sound, ``(n,)``.
    """

    X: Floats
    F: Floats
    violation: Floats

    @property
    def sound(self) -> NDArray[np.bool_]:
        """Which have results and keep all constraints, ``(n,)``."""
        return np.asarray(self.violation <= 0)

    @cached_property
    def ranks(self) -> Floats:
        """Rank in each objective from 1, the best, those that are not sound at the end, ``(n, n_obj)``."""
        behind = rankdata(self.violation, method="dense") - (1 if self.sound.any() else 0)
        columns = []
        for values in self.F.T:
            inside = values[self.sound]
            worst = inside.max() if len(inside) else 0.0
            columns.append(rankdata(np.where(self.sound, values, worst + (abs(worst) + 1) * behind)))
        return np.column_stack(columns)


def normal_scores(ranks: Floats) -> Floats:
    """Return the normal scores of ranks from 1 to n, ``(n,)`` or ``(n, columns)``."""
    scores: Floats = norm.ppf((ranks - 0.5) / len(ranks))
    return scores


def bands(cost: Floats) -> list[Rows]:
    """Return the rows of each cost band, bands being equally full; there is one if all cost the same."""
    if np.ptp(cost) == 0:
        return [np.arange(len(cost))]
    count = max(1, min(BANDS, len(cost) // BAND_SIZE))
    return np.array_split(np.argsort(cost, kind="stable"), count)


def agreement(expected: Floats, ranks: Floats, groups: Sequence[Rows]) -> float:
    """Return the mean over groups of Kendall's tau of two orders, 0 if no group has one."""
    taus = [float(kendalltau(expected[rows], ranks[rows]).statistic) for rows in groups]
    taus = [tau for tau in taus if np.isfinite(tau)]  # none where all are equal
    return float(np.mean(taus)) if taus else 0.0


class ObjectiveRanker:
    """Ensemble for one objective.

    Args:
        encoding: How architectures are encoded.

    Attributes:
        value_tau: Kendall's tau of predicted values within cost bands, at most that of predicted ranks, from 0 to 1.
        value_trust: How well values are predicted, as a share of how well ranks are, from 0 to 1.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.value_tau = self.value_trust = 0.0
        self._by_rank = GaussianProcess(encoding.genes)
        self._by_value = ValueProcess(encoding)
        self._nets = RankNets(encoding.width)
        self._learnt = 0

    def fit_ranks(self, scored: Scored, ranks: Floats, near: Rows, rng: np.random.Generator) -> float:
        """Learn from ranks ``(n,)``, and return Kendall's tau over ``near``, each predicted from the others."""
        self._scores = normal_scores(ranks)
        self._by_rank.tune(scored.X[near], self._scores[near], rng)
        self._by_rank.fit(scored.X[near], self._scores[near])
        return agreement(self._by_rank.left_out(), ranks[near], [np.arange(len(near))])

    def fit(
        self, scored: Scored, objective: int, ranks: Floats, cost: Floats, near: Rows, rng: np.random.Generator
    ) -> None:
        """Learn what :meth:`fit_ranks` leaves, and weigh the members.

        Args:
            scored: All that is known.
            objective: Which column of F.
            ranks: Its ranks, ``(n,)``.
            cost: What cost bands are of, ``(n,)``.
            near: Rows that Gaussian processes learn from.
            rng: Source of all that is drawn.
        """
        inside, judged = near[scored.sound[near]], bands(cost[near])
        taus = np.array([agreement(self._by_rank.left_out(), ranks[near], judged), -np.inf, -np.inf])
        values, trust = scored.F[:, objective], 0.0
        if len(inside) >= BAND_SIZE and np.ptp(values[inside]) > 0:

            def judge(process: FormProcess) -> float:
                return agreement(process.left_out(near), ranks[near], judged)

            trust, taus[1] = self._by_value.fit(scored.X, values, inside, judge, rng)
            order = np.argsort(values[inside], kind="stable")
            self._values, self._at = self._by_value.chosen.formed(values[inside][order]), self._scores[inside][order]
            self._deviation = float(self._values.std()) or 1.0
        if len(ranks) >= ENOUGH:
            if len(ranks) >= GROWTH * self._learnt:
                self._learnt = len(ranks)
                self._nets.fit(scored.X, ranks, [*bands(cost), np.arange(len(ranks))], rng)
                self._net_scores, self._net_at = np.sort(self._nets.left_out(scored.X)), np.sort(self._scores)
            taus[2] = agreement(self._nets_left_out(scored.X)[near], ranks[near], judged)
        self._weights = np.exp(-SHARPNESS * len(near) ** 0.5 * (taus.max() - taus))
        self._weights[self._weights < LEAST_WEIGHT] = 0.0
        self._weights /= self._weights.sum()
        self.value_tau = max(min(trust, taus[0]), 0.0)
        self.value_trust = self.value_tau / taus[0] if taus[0] > 0 else 0.0

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        """Return normal scores of vectors ``(m, width)`` and the deviation of the members' ones, ``(m,)`` each."""
        scores = np.array([member(Z) for member, weight in zip(self._members, self._weights, strict=True) if weight])
        weights = self._weights[self._weights > 0]
        mean = weights @ scores
        spread: Floats = np.sqrt(weights @ (scores - mean) ** 2)
        return mean, spread

    def left_out(self, scored: Scored, near: Rows) -> Floats:
        """Return the normal score that each known architecture is expected to have from all others, ``(n,)``."""
        expected = np.zeros(len(scored.X))
        for member, weight in enumerate(self._weights):
            if weight > 0:
                if member == 0:
                    scores = self._by_rank.predict(scored.X)
                    scores[near] = self._by_rank.left_out()
                elif member == 1:
                    scores = self._from_value(self._by_value.chosen.left_out(np.arange(len(scored.X))))
                else:
                    scores = self._from_net(self._nets_left_out(scored.X))
                expected += weight * scores
        return expected

    def _nets_left_out(self, X: Floats) -> Floats:
        """Return the networks' scores of all that is known, each by those that have not learnt from it, ``(n,)``."""
        scores = self._nets.predict(X)
        scores[: self._learnt] = self._nets.left_out(X[: self._learnt])
        return scores

    @property
    def _members(self) -> list[Callable[[Floats], Floats]]:
        return [
            self._by_rank.predict,
            lambda Z: self._from_value(self._by_value.chosen.predict(Z)),
            lambda Z: self._from_net(self._nets.predict(Z)),
        ]

    def _from_value(self, value: Floats) -> Floats:
        """Return the normal scores of values, those better than any known one by how much they are."""
        beyond = np.minimum(value - self._values[0], 0.0) / self._deviation
        scores: Floats = np.interp(value, self._values, self._at) + beyond
        return scores

    def _from_net(self, score: Floats) -> Floats:
        """Return the normal scores of scores of networks, which have the same order and no unit."""
        return np.interp(score, self._net_scores, self._net_at)


class Ranker:
    """Ensembles for all objectives.

    Args:
        encoding: How architectures are encoded.
        n_obj: Number of objectives.
        cost: Objective that cost bands are of; the best predicted one without it.
        predicted: Objectives that are predicted, all of them by default; the others get the score 0.
    """

    def __init__(
        self, encoding: Encoding, n_obj: int, cost: int | None, predicted: Sequence[int] | None = None
    ) -> None:
        self._n_obj = n_obj
        self._objectives = {k: ObjectiveRanker(encoding) for k in (range(n_obj) if predicted is None else predicted)}
        self._given = cost
        self.cost = cost or 0

    def fit(self, scored: Scored, rng: np.random.Generator) -> None:
        """Learn from all that is known."""
        ranks, near = scored.ranks, _near(scored, rng)
        taus = {k: member.fit_ranks(scored, ranks[:, k], near, rng) for k, member in self._objectives.items()}
        if self._given is None:
            self.cost = max(taus, key=lambda k: taus[k])
        for k, member in self._objectives.items():
            member.fit(scored, k, ranks[:, k], self.costs(ranks, k), near, rng)
        self._scored, self._near = scored, near

    def of_values(self, objectives: Rows) -> tuple[float, float]:
        """Return how well values are predicted, the least of some objectives: as a share of ranks, and their tau."""
        members = [self._objectives[k] for k in objectives.tolist()]
        trust = min((member.value_trust for member in members), default=1.0)
        return trust, min((member.value_tau for member in members), default=1.0)

    def costs(self, ranks: Floats, objective: int) -> Floats:
        """Return what cost bands of an objective are of: ranks in the cost, or in another one for the cost itself."""
        if self._n_obj == 1:
            return np.zeros(len(ranks))
        other = self.cost if objective != self.cost else int(self.cost == 0)
        return ranks[:, other]

    def left_out(self) -> Floats:
        """Return what each known architecture is expected to have from all others, normal scores ``(n, n_obj)``."""
        expected = np.zeros((len(self._scored.X), self._n_obj))
        for k, member in self._objectives.items():
            expected[:, k] = member.left_out(self._scored, self._near)
        return expected

    def predict(self, Z: Floats) -> tuple[Floats, Floats]:
        """Return normal scores of vectors ``(m, width)`` and the ensemble's spread, ``(m, n_obj)`` each."""
        scores, spread = np.zeros((2, len(Z), self._n_obj))
        for k, member in self._objectives.items():
            scores[:, k], spread[:, k] = member.predict(Z)
        return scores, spread


def _near(scored: Scored, rng: np.random.Generator) -> Rows:
    """Return the rows that Gaussian processes learn from: the least dominated, and some of the others."""
    n = len(scored.X)
    if n <= NEAREST:
        return np.arange(n)
    best = np.argsort(layers(scored), kind="stable")[: NEAREST * 3 // 4]
    others = np.setdiff1d(np.arange(n), best)
    return np.sort(np.concatenate([best, rng.choice(others, NEAREST - len(best), replace=False)]))


def layers(scored: Scored) -> NDArray[np.int64]:
    """Return by how many layers of non-dominated ones each architecture is behind the front, ``(n,)``."""
    return np.asarray(moocore.pareto_rank(scored.ranks), dtype=np.int64)
