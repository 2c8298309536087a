"""An algorithm that is defined outside the package, here, searches in both modes; what it repeats costs nothing."""

import numpy as np
from pymoo.core.algorithm import Algorithm
from pymoo.core.population import Population

import nas
from nas.plan import Plan, Row

TOLD = []


class Climber(Algorithm):
    """Proposes positions around the best of the first objective, and the best itself."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.count, self.best = plan.population, None

    def _initialize_infill(self):
        return self._around(self.random_state.uniform(self.problem.xl, self.problem.xu), 1.0)

    def _infill(self):
        return self._around(self.best.X, 0.2)

    def _around(self, X, spread):
        steps = self.random_state.normal(0, spread, (self.count, len(X))) * (self.problem.xu - self.problem.xl)
        steps[::2] = 0
        return Population.new(X=np.clip(X + steps, self.problem.xl, self.problem.xu))

    def _initialize_advance(self, infills, **_):
        self._advance(infills)

    def _advance(self, infills, **_):
        TOLD.extend(infills)
        self.best = min([*infills, *([self.best] if self.best else [])], key=lambda each: (each.CV[0], each.F[0]))


OWN = Row(Climber, reals=True, asynchronous=True, steady=True)
RECIPE = """
name = "own-algorithm"
space = "digits"
data = { name = "digits", train_images = 200 }
training = { epochs = 1, warmup_epochs = 0.1 }
scoring = { calibration_images = 32, validation_images = 32 }
search = { algorithm = "test_own_algorithm:OWN", evaluations = 12, population = 4, baseline = false, mode = "MODE" }
workers = { pool = "local" }
"""


def test_an_algorithm_of_a_module_searches_in_both_modes_and_its_repeats_cost_nothing(tmp_path):
    for mode in ("generational", "async"):
        (tmp_path / "own.toml").write_text(RECIPE.replace("MODE", mode))
        run = nas.search(tmp_path / "own.toml", tmp_path / mode)
        assert run.evaluations()["key"].nunique() == len(run.evaluations()) == 12
        assert len(TOLD) > 12, "repeats were told as well"
        TOLD.clear()
        assert "test_own_algorithm:OWN, population 4" in (run.folder / "report.html").read_text()
