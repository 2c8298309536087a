"""A space that is defined outside the package, here, is searched from a recipe, and read back without this module."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nas
from spaces import SearchSpace, load_space


def narrow() -> SearchSpace:
    """Return a part of the space ``digits``, made by code and not by a file."""
    values = replace(load_space("digits"), name="narrow").to_dict()
    values["genes"] |= {"embed_dim": [8 * width for width in (1, 3)], "depth": [1], "num_heads": [1, 2]}
    return SearchSpace.from_dict(values)


RECIPE = """
name = "own-space"
space = "test_own_space:narrow"
metrics = ["accuracy", "energy_mj"]

[data]
name = "digits"
train_images = 200

[training]
epochs = 1
warmup_epochs = 0.1

[scoring]
calibration_images = 32
validation_images = 32

[search]
evaluations = 8
population = 4
expand = 1

[workers]
pool = "local"
"""


def test_a_space_of_a_module_is_searched_and_kept_as_data(tmp_path):
    (tmp_path / "own.toml").write_text(RECIPE)
    run = nas.search(tmp_path / "own.toml", tmp_path / "run")
    assert run.space == narrow().with_input(8, 1, 10)
    assert set(run.evaluations()["embed_dim"]) == {8, 24}
    code = f"import sys, nas; run = nas.Run({str(run.folder)!r}); print(run.space.name, len(run.front())); "
    code += "print([name for name in ('torch', 'test_own_space') if name in sys.modules])"
    elsewhere = {**os.environ, "PYTHONPATH": str(Path(nas.__file__).parents[1])}
    read = subprocess.check_output([sys.executable, "-c", code], env=elsewhere, cwd=tmp_path, text=True)
    assert read.splitlines() == [f"narrow {len(run.front())}", "[]"]
