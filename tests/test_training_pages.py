"""The pages on retraining and on fidelity run as they stand, on a shortened digits recipe, and name all there is."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import nas
import nas.config
from nas.cli import app
from nas.fidelity_file import FIDELITY

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("retrain", "fidelity")}
SHORTER = {"--subnets 24": "--subnets 6", "--epochs 40": "--epochs 1", "--seeds 3": "--seeds 2"}


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[name], flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def short_digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory in which the digits recipe takes seconds."""
    folder = tmp_path_factory.mktemp("training-pages")
    recipe = (ROOT / "nas/recipes/digits.toml").read_text(encoding="utf-8")
    for key, value in {"epochs": 2, "warmup_epochs": 1, "evaluations": 6, "population": 4}.items():
        recipe, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", recipe, flags=re.MULTILINE)
        assert count == 1, f"the digits recipe sets {key}"
    recipe = recipe.replace('pool = "ray"', 'pool = "local"').replace("[data]\n", "[data]\ntrain_images = 256\n")
    (folder / "recipes").mkdir()
    (folder / "recipes" / "digits.toml").write_text(recipe, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.config, "_RECIPES", folder / "recipes")
        patch.chdir(folder)
        yield folder


@pytest.mark.parametrize(
    ("page", "commands"),
    [
        ("retrain", ["search", "export", "retrain", "retrain", "retrain", "evaluate"]),
        ("fidelity", ["search", "fidelity"]),
    ],
)
def test_commands_and_code_run_as_written(short_digits: Path, page: str, commands: list[str]) -> None:
    lines = [line.split("#")[0].strip() for line in blocks(page, "sh")[0].splitlines()]
    assert [line.split()[1] for line in lines] == commands
    for written in lines:
        line = written
        for long, short in SHORTER.items():
            line = line.replace(long, short)
        key = nas.Run("runs/digits").front().iloc[0].key if "KEY" in line else ""
        result = CliRunner().invoke(app, shlex.split(line.replace("KEY", key))[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert result.stdout.strip(), line
    for code in blocks(page, "python"):
        exec(compile(code, f"{page}.md", "exec"), {})
    if page == "fidelity":
        assert len(json.loads((short_digits / "runs/digits" / FIDELITY).read_text())["points"]) == 6


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_name_every_option(page: str) -> None:
    known = get_command(app).commands[page].params
    options = {name for each in known for name in each.opts if name.startswith("--")} - {
        "--format",
        "--json",
        "--quiet",
    }
    assert {name for name in options if not re.search(rf"{name}(?![\w-])", PAGES[page])} == set()
