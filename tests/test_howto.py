"""The pages of docs/howto run as they stand, with shorter trainings: files, commands and code in their order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pages import ROOT
from typer.testing import CliRunner

import nas
from nas.cli import app
from nas.config import load_recipe

PAGES = sorted(path.stem for path in (ROOT / "docs/howto").glob("*.md"))
SHORTER = {"epochs": "1", "warmup_epochs": "0.1", "evaluations": "8"}
BLOCK = re.compile(r"(?:`([\w-]+\.(?:py|toml))`:\n\n)?^```(\w+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
RUNS = {"own-algorithm": ["neighbours", "restless", "compared"], "own-data": ["leaves"], "own-neuron": ["decay"]} | {
    "own-objective": ["fast"],
    "own-space": ["tall"],
    "own-supernet": ["perceptrons"],
}


def shortened(text: str) -> str:
    for key, value in SHORTER.items():
        text = re.sub(rf"^{key} = \S+", f"{key} = {value}", text, flags=re.MULTILINE)
    text = text.replace("[search]\n", "[search]\npopulation = 4\n")
    return text.replace('[data]\nname = "digits"\n', '[data]\nname = "digits"\ntrain_images = 256\n')


def run_command(line: str) -> None:
    name, *words = shlex.split(line, comments=True)
    if name == "python":
        subprocess.run([sys.executable, *words], check=True, timeout=100)
        return
    assert name == "nas"
    words = ["2" if word == "3" else word for word in words]  # seeds of a comparison
    if words[0] == "search":
        words += ["--pool", "local"]
    if words[0] == "compare":
        words += ["--evaluations", "8", "--workers", "1"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    assert result.stdout.strip(), f"{line} prints nothing"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A reader's folder, whose modules are found."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_files_commands_and_code_of_a_page_run_in_order(page: str, elsewhere: Path) -> None:
    text = (ROOT / f"docs/howto/{page}.md").read_text(encoding="utf-8")
    found = BLOCK.findall(text)
    assert len(found) == text.count("```") / 2
    for file, language, code in found:
        if file:
            assert file.endswith({"python": ".py", "toml": ".toml"}[language])
            recipe = "[search]" in code
            (elsewhere / file).write_text(shortened(code) if recipe else code, encoding="utf-8")
            if recipe:
                assert load_recipe(elsewhere / file).search.evaluations == 8
        elif language == "sh":
            for line in code.splitlines():
                run_command(line)
        else:
            assert language == "python", "other blocks are files or commands"
            exec(compile(code, f"{page}.md", "exec"), {})
    for name in RUNS[page]:
        if name == "compared":
            assert len(pd.read_csv("runs/compared/summary.csv")) == 3
            continue
        frame = nas.Run(f"runs/{name}").evaluations()
        assert (len(frame), (frame["state"] == "complete").all()) == (8, True), frame["failure"].tolist()
    assert {path.name for path in Path("runs").iterdir()} == set(RUNS[page])


def test_every_page_is_linked_from_the_page_on_recipes_and_the_readme() -> None:
    for page in ("README.md", "docs/recipes.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert all(f"howto/{name}.md)" in text for name in PAGES), page


def test_every_own_part_is_defined_in_one_file_of_less_than_60_lines() -> None:
    files = sorted((ROOT / "tests/own").glob("test_own_*.py"))
    names = {path.stem.removeprefix("test_own_") for path in files}
    assert names == {"algorithm", "evaluator", "neuron", "source", "space"}
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 60 for path in files)
