"""The commands and the code of the README run as they stand, on a shortened digits recipe."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from pages import ROOT, blocks, short_digits_in
from typer.testing import CliRunner

import nas.config
from nas.cli import app


def commands(page: str) -> list[str]:
    """All ``nas`` lines that need no file of the reader's own."""
    lines = [line.split("#")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("nas ") and "DIR" not in line]


@pytest.fixture(scope="module")
def short_digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory in which the digits recipe takes seconds."""
    with short_digits_in(tmp_path_factory.mktemp("readme"), evaluations=12) as folder:
        yield folder


def test_readme_code_prints_a_front_and_loads_a_network(short_digits: Path) -> None:
    (code,) = blocks("README.md", "python")
    assert len(code.splitlines()) <= 15
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    front = names["front"]
    assert isinstance(front, pd.DataFrame)
    assert len(front) >= 1
    assert front["accuracy"].is_monotonic_decreasing
    assert not names["subnet"].training
    assert (short_digits / "runs/digits/report.html").stat().st_size > 1_000_000


def test_commands_run_as_written(short_digits: Path) -> None:
    lines = commands("README.md")
    assert any(line.startswith("nas search") for line in lines)
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert result.stdout.strip(), f"{line} prints nothing"


def test_supernet_page_code_extracts_a_subnet() -> None:
    (code,) = blocks("docs/supernet.md", "python")
    names: dict[str, object] = {}
    exec(compile(code, "supernet.md", "exec"), names)
    assert names["subnet"].architecture == names["space"].smallest()


def test_recipe_page_shows_a_valid_recipe_and_space() -> None:
    import tomllib

    from spaces import SearchSpace

    recipe, _, space = (tomllib.loads(block) for block in blocks("docs/recipes.md", "toml"))
    recipe["metrics"].append("f_aeb")
    assert nas.config.parse_recipe(recipe, "recipes.md").name == "my-run"
    assert SearchSpace.from_dict(space).size > 1


@pytest.mark.parametrize(
    "page", ["README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (path.parent / target).exists(), target
