"""Problems whose optimum is known, and a way to run a swarm on them."""

import numpy as np
from pymoo.core.evaluator import Evaluator
from pymoo.core.problem import Problem

from nas.diversity import Thresholds

ALWAYS = Thresholds(first=1.0, last=1.0, recovery=1.0, until=1.0)
"""Diversity is never above these: the control always acts."""


class Shifted(Problem):
    """Sphere or Rastrigin with its optimum 0 at 1.5."""

    def __init__(self, n_var=10, ripple=0.0, xl=-5.0, xu=5.0):
        self.ripple = ripple
        super().__init__(n_var=n_var, n_obj=1, xl=xl, xu=xu)

    def _evaluate(self, x, out, *_, **__):
        z = x - 1.5
        out["F"] = (z**2 + self.ripple * (1 - np.cos(2 * np.pi * z))).sum(axis=1)


class Circle(Problem):
    """The largest x + y on the unit disk, given as a minimum: -sqrt(2)."""

    def __init__(self):
        super().__init__(n_var=2, n_obj=1, n_ieq_constr=1, xl=-2.0, xu=2.0)

    def _evaluate(self, x, out, *_, **__):
        out["F"], out["G"] = -x.sum(axis=1), (x**2).sum(axis=1) - 1


def told(algorithm, problem, generations, **options):
    algorithm.setup(problem, seed=1, **options)
    for _ in range(generations):
        algorithm.tell(infills=Evaluator().eval(problem, algorithm.ask()))
    return algorithm
