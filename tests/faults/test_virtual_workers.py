"""A thousand workers in virtual time, some of which die and come back: nobody idles, and nothing is repeated."""

import heapq
from collections import Counter

import numpy as np
import pytest

from nas.algorithms import build_algorithm
from nas.asynchronous import Conversation, run_asynchronous
from nas.evaluation import Evaluation
from nas.loop import Quest
from nas.problem import ArchitectureProblem
from spaces import load_space

OBJECTIVES = {"accuracy": "max", "energy_mj": "min"}


class Workers:
    """Workers that die, are away for a while, and come back; the next free one begins again what they were at.

    Args:
        count: Workers.
        deaths: Share of evaluations during which a worker dies.
        seed: Of durations, which are log-normal, and of deaths.
    """

    def __init__(self, count, deaths=0.0, seed=0):
        self.rng, self.free, self.count, self.deaths = np.random.default_rng(seed), count, count, deaths
        self.now, self.number, self.died, self.idle_share = 0.0, 0, 0, None
        self.idle, self.last = 0.0, (0.0, 0.0)
        self.waiting, self.events, self.begun = [], [], []

    def submit(self, architecture, split="validation"):
        self.waiting.append(architecture)
        self._begin()
        self.last = (self.now, self.idle)

    def _event(self, seconds, kind, architecture=None):
        self.number += 1
        heapq.heappush(self.events, (self.now + seconds, self.number, kind, architecture))

    def _begin(self):
        while self.free and self.waiting:
            architecture, seconds = self.waiting.pop(0), self.rng.lognormal()
            self.free -= 1
            self.begun.append(architecture)
            if self.rng.random() < self.deaths:
                self._event(seconds * self.rng.random(), "died", architecture)
            else:
                self._event(seconds, "ended", architecture)

    @property
    def hungry(self):
        return len(self.waiting) < self.free

    def collect(self):
        while True:
            then, _, kind, architecture = heapq.heappop(self.events)
            self.idle, self.now = self.idle + self.free * (then - self.now), then
            if kind == "died":
                self.died += 1
                self._event(2.0, "back")
                self.waiting.insert(0, architecture)
            else:
                self.free += 1
            self._begin()
            if kind == "ended":
                size = architecture.embed_dim * architecture.timesteps * len(architecture.layers)
                return Evaluation(architecture, {"accuracy": size / (size + 500), "energy_mj": size * 1e-3}, 1.0)

    def withdraw(self):
        self.waiting.clear()
        return len(self.events)

    @property
    def idle_before_the_end(self):
        """Share of the workers' time in which they had nothing to do, up to the last proposal."""
        now, idle = self.last
        return idle / (self.count * now)


class Diary:
    """What was proposed and told, in memory."""

    def __init__(self):
        self.after, self.known = {}, {}

    @property
    def proposals(self):
        return list(self.after.items())

    @property
    def told(self):
        return list(self.known.values())

    def open(self, architecture, generation, *, parents, after):
        assert architecture not in self.after, "proposed twice"
        self.after[architecture] = after

    def close(self, evaluation, *, told):
        assert told == len(self.known), "told out of turn"
        assert evaluation.architecture not in self.known, "told twice"
        self.known[evaluation.architecture] = evaluation


@pytest.mark.parametrize("deaths", [0.0, 0.05])
def test_a_thousand_workers_are_kept_busy_and_nothing_is_lost_or_repeated(deaths):
    problem, workers, diary = ArchitectureProblem(load_space("digits"), OBJECTIVES), Workers(1000, deaths), Diary()
    algorithm = build_algorithm("nsga2", problem, 20, 0, 2500, expand=1)
    conversation = Conversation(algorithm.problem, algorithm, 20, 1, {})
    run_asynchronous(Quest(problem, workers, diary, 2500), conversation)
    assert workers.idle_before_the_end < 0.01
    counts = Counter(workers.begun)
    assert len(counts) == len(diary.known) == len(diary.after) == 2500
    assert sum(counts.values()) == 2500 + workers.died
    assert (workers.died > 60) == (deaths > 0)
    assert list(diary.after.values())[:1000] == [0] * 1000
