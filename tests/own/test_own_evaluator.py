"""An evaluator that is defined outside the package, here, gives an objective, also in Ray workers."""

import os
import subprocess
import sys
from pathlib import Path

import nas


class Reach:
    """Width of all layers together, in units of a unit that the recipe chooses."""

    metrics = {"reach": "max"}  # noqa: RUF012  # as a reader would write it

    def __init__(self, unit: float = 1.0) -> None:
        self.unit = unit

    def __call__(self, candidate) -> dict[str, float]:
        return {"reach": candidate.architecture.depth * candidate.architecture.embed_dim / self.unit}


RECIPE = """
name = "own-evaluator"
space = "digits"
metrics = ["test_own_evaluator:Reach", "energy_mj"]

[options."test_own_evaluator:Reach"]
unit = 8.0

[data]
name = "digits"
train_images = 200

[training]
epochs = 1
warmup_epochs = 0.1

[search]
objectives = ["reach", "energy_mj"]
evaluations = 8
population = 4
baseline = false
"""


def test_an_evaluator_of_a_module_gives_an_objective_in_ray_workers(tmp_path):
    (tmp_path / "own.toml").write_text(RECIPE)
    (tmp_path / "test_own_evaluator.py").write_text(Path(__file__).read_text())  # the command looks beside itself
    environment = {**os.environ, "PYTHONPATH": str(Path(nas.__file__).parents[1])}
    command = [sys.executable, "-c", "from nas.cli import main; main()", "search", "own.toml", "--workers", "1"]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=240)
    frame = nas.Run(tmp_path / "runs/own-evaluator").evaluations()
    assert (frame["reach"] == frame["depth"] * frame["embed_dim"] / 8).all()
    assert (len(frame), frame["worker"].nunique()) == (8, 1)
