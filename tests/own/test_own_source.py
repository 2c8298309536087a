"""A supernet that is defined outside the package, here, is searched by Ray workers with all there is to a run."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nas
from spaces import InputError, ProductSpace


class Polynomials:
    """A supernet of curves: its weights are trained once, and each architecture takes the first ones of them."""

    metrics = {"fit": "max", "cost": "min"}  # noqa: RUF012  # as a reader would write it
    fingerprint = "points of 2026"
    tested = True

    def __init__(self, noise: float = 0.0) -> None:
        genes = {"terms": [1, 2, 3, 4], "basis": ["powers", "waves"], "skip_last": [False, True]}
        self.space = ProductSpace.from_dict({"name": "curves", "genes": genes, "needs": {"skip_last": ["terms", 3]}})
        self.noise = noise

    def prepare(self, folder: Path) -> None:
        self.weights = np.array([1.0, 0.5, 0.25, 0.125]) + self.noise  # nothing to train here

    def open(self):
        def answer(architecture, split):
            genes = architecture.genes
            terms = genes["terms"] - genes.get("skip_last", False)
            fit = self.weights[:terms].sum() - (genes["basis"] == "waves") - (split == "test")
            return {"fit": fit, "cost": terms}

        return answer


RECIPE = """
name = "own-source"
source = "test_own_source:Polynomials"
options = { "test_own_source:Polynomials" = { noise = 0.5 } }
search = { objectives = ["fit", "cost"], evaluations = 12, hypervolume_reference = { fit = 0.0, cost = 5.0 } }
"""


def test_a_supernet_of_a_module_is_searched_by_ray_workers_and_refuses_what_it_has_not(tmp_path):
    (tmp_path / "own.toml").write_text(RECIPE)
    (tmp_path / "test_own_source.py").write_text(Path(__file__).read_text())  # the command looks beside itself
    command = [sys.executable, "-c", "from nas.cli import main; main()", "search", "own.toml", "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(nas.__file__).parents[1])}
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=240)
    run = nas.Run(tmp_path / "runs/own-source")
    assert (run.space.size, len(run.evaluations()), run.evaluations()["worker"].nunique()) == (12, 12, 1)
    assert run.front()["fit"].unique().tolist() == [3.875, 3.25, 2.5, 1.5]
    assert (run.front()["test_fit"] == run.front()["fit"] - 1).all()
    with pytest.raises(InputError, match="the source test_own_source:Polynomials, which has no supernet"):
        run.load(run.front().iloc[0].key)
