"""The page on results and picking runs as it stands, on a run of a table."""

import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from pages import ROOT, blocks
from typer.testing import CliRunner

import nas
from nas.cli import app
from nas.pick import Pick

PAGE = (ROOT / "docs/picking.md").read_text(encoding="utf-8")

RECIPE = """
name = "digits"

[table]
file = "results.csv"
genes = ["width", "timesteps"]
metrics = { accuracy = "max", energy_mj = "min" }
test = { accuracy = "accuracy" }

[search]
population = 4
evaluations = 16
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with the runs of the page."""
    folder = tmp_path_factory.mktemp("picking-page")
    rows = list(product(range(8, 65, 8), [1, 2, 4]))
    table = pd.DataFrame(rows, columns=["width", "timesteps"])
    table["accuracy"] = 1 - 1 / (table["width"] * table["timesteps"])
    table["energy_mj"] = 1e-3 * table["width"] ** 1.5 * table["timesteps"]
    table.to_csv(folder / "results.csv", index=False)
    (folder / "digits.toml").write_text(RECIPE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        nas.search("digits.toml")
        nas.search("digits.toml", "runs/other", run={"seed": 1})
        yield folder


def test_commands_run_as_written(folder: Path) -> None:
    lines = [line for block in blocks("docs/picking.md", "sh") for line in block.splitlines()]
    assert [shlex.split(line)[1] for line in lines] == ["results"] * 6 + ["pick"] * 5
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert result.stdout.strip(), f"{line} prints nothing"
    assert len(pd.read_parquet("results.parquet")) == 16
    assert len(pd.read_json("front.json")) >= 2


def test_code_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code in blocks("docs/picking.md", "python"):
        names: dict[str, object] = {}
        exec(compile(code, "picking.md", "exec"), names)
    picked = names["picked"]
    assert isinstance(picked, Pick)
    assert picked.key in capsys.readouterr().out
