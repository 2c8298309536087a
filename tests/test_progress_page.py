"""The page on progress runs as it stands, on a recipe of a table, with stand-ins for the tools that log."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from pages import ROOT, blocks
from test_picking_page import RECIPE
from typer.testing import CliRunner

import nas.config
from nas import logs
from nas.cli import app

PAGE = (ROOT / "docs/progress.md").read_text(encoding="utf-8")


class Sink:
    """Remembers what is logged."""

    def __init__(self, target: str, name: str) -> None:
        self.target, self.name, self.values = target, name, dict[str, float]()

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.values |= values

    def close(self, done: bool) -> None:
        assert done


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe ``digits`` that takes no time."""
    rows = [f"{width},{timesteps}" for width in range(8, 65, 8) for timesteps in (1, 2, 4)]
    table = [f"{row},{0.5 + number / 100},{number % 7 + 1}" for number, row in enumerate(rows)]
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "results.csv").write_text("\n".join(["width,timesteps,accuracy,energy_mj", *table]))
    (tmp_path / "recipes" / "digits.toml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.setattr(nas.config, "_RECIPES", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_run_as_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sinks: list[Sink] = []

    def made(target: str, name: str) -> Sink:
        sinks.append(Sink(target, name))
        return sinks[-1]

    monkeypatch.setattr(logs, "SINKS", {"tensorboard": (made, "a folder")})
    monkeypatch.setattr(logs, "find_spec", lambda name: object())
    (block,) = blocks("docs/progress.md", "sh")
    for line in block.splitlines():
        _, verb, *words = shlex.split(line, comments=True)
        command = typer.main.get_command(app).commands[verb]
        assert command.make_context(verb, list(words)).params["recipe"] == "digits"
        if verb == "train":  # a table has nothing to train
            continue
        words = [word.replace("mlflow:", "tensorboard:") for word in words]
        result = CliRunner().invoke(app, [verb, *words], catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        if "--json" in words:
            assert json.loads(result.stdout.splitlines()[-1])["event"] == "result"
    assert [(sink.target, sink.name) for sink in sinks] == [("logs", "digits"), ("http://127.0.0.1:5000", "digits")]
    named = set(re.findall(r"`((?:search|random)/\w+)`", PAGE))
    assert len(named) == 3
    assert named <= set(sinks[0].values)


def test_code_runs_as_written(folder: Path) -> None:
    (code,) = blocks("docs/progress.md", "python")
    exec(compile(code, "progress.md", "exec"), {})
