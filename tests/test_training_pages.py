"""The pages on retraining and on fidelity run as they stand, on a shortened digits recipe, and name all there is."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT, blocks, short_digits_in
from typer.main import get_command
from typer.testing import CliRunner

import nas
import nas.config
from nas.cli import app
from nas.fidelity_file import FIDELITY

PAGES = {name: (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("retrain", "fidelity")}
SHORTER = {"--subnets 24": "--subnets 6", "--epochs 40": "--epochs 1", "--seeds 3": "--seeds 2"}


@pytest.fixture(scope="module")
def short_digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory in which the digits recipe takes seconds."""
    with short_digits_in(tmp_path_factory.mktemp("training-pages"), train_images=256) as folder:
        yield folder


@pytest.mark.parametrize(
    ("page", "commands"),
    [
        ("retrain", ["search", "export", "retrain", "retrain", "retrain", "evaluate", "convert"]),
        ("fidelity", ["search", "fidelity"]),
    ],
)
def test_commands_and_code_run_as_written(short_digits: Path, page: str, commands: list[str]) -> None:
    lines = [line.split("#")[0].strip() for line in blocks(f"docs/{page}.md", "sh")[0].splitlines()]
    assert [line.split()[1] for line in lines] == commands
    for written in lines:
        line = written
        for long, short in SHORTER.items():
            line = line.replace(long, short)
        key = nas.Run("runs/digits").front().iloc[0].key if "KEY" in line else ""
        result = CliRunner().invoke(app, shlex.split(line.replace("KEY", key))[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert result.stdout.strip(), line
    for code in blocks(f"docs/{page}.md", "python"):
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
