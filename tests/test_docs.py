"""The pages on neurons, speed and swarms run as they stand, and the pages on recipes and searches name every key."""

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from pages import ROOT, blocks
from typer.testing import CliRunner

import nas
from nas.cli import app
from nas.config import RunConfig, parse_recipe
from nas.diversity import CONTROLS
from nas.sections import DataConfig, ScoringConfig, SearchConfig, TableConfig, WorkersConfig
from spaces import SearchSpace
from supernet.engine import PRECISIONS
from supernet.neurons import EXECUTORS
from supernet.settings import TrainSettings

# Neurons


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A reader's folder: the neuron, the space and a shortened recipe of the page."""
    folder = tmp_path_factory.mktemp("neurons")
    (folder / "my_neurons.py").write_text(blocks("docs/neurons.md", "python")[0], encoding="utf-8")
    space, recipe = blocks("docs/neurons.md", "toml")
    (folder / "adaptive-space.toml").write_text(space, encoding="utf-8")
    for key, value in {"epochs": 2, "warmup_epochs": 1, "evaluations": 6}.items():
        recipe, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", recipe, flags=re.MULTILINE)
        assert count == 1, f"the recipe of the page sets {key}"
    recipe += "population = 6\nbaseline = false\n\n[workers]\npool = 'local'\n"
    recipe += "[scoring]\ncalibration_images = 64\nvalidation_images = 64\n"
    recipe = recipe.replace('name = "digits"\n', 'name = "digits"\ntrain_images = 256\n')
    (folder / "adaptive.toml").write_text(recipe, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        yield folder
    sys.modules.pop("my_neurons", None)


@pytest.fixture
def mine(folder: Path) -> ModuleType:
    import my_neurons

    return my_neurons


def test_the_neuron_of_the_page_computes_and_learns(folder: Path) -> None:
    _, code = blocks("docs/neurons.md", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "neurons.md", "exec"), names)
    assert names["spikes"].shape == names["current"].shape
    assert names["neuron"].beta.grad.abs() > 0
    assert 0 < names["spikes"].mean() < 1


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("shape", [(1, 1), (4, 3, 5), (3, 2, 7, 2)])
def test_the_neuron_of_the_page_follows_its_recurrence_on_all_executors(
    soft: bool, shape: tuple[int, ...], mine: ModuleType
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    incoming = torch.randn(shape, generator=generator, dtype=torch.float64)
    v, a, expected = torch.zeros(shape[1:]).double(), torch.zeros(shape[1:]).double(), []
    for current in x:
        u, limit = v + (current - v) / 2, 0.7 + torch.tensor(0.2, dtype=torch.float32).double() * a
        s = (u >= limit).double()
        v, a = u - s * limit if soft else u * (1 - s), 0.9 * a + s
        expected.append(s)
    gradients = []
    for executor in ("auto", "native", "reference"):
        neuron, leaf = mine.AdaptiveLIF(soft=soft, executor=executor).double(), x.clone().requires_grad_()
        spikes = neuron(leaf, 0.7, 2.0)
        assert torch.equal(spikes, torch.stack(expected)), executor
        spikes.backward(incoming)
        gradients.append((leaf.grad, neuron.beta.grad))
    for found in gradients[:-1]:
        torch.testing.assert_close(found, gradients[-1], rtol=1e-10, atol=1e-12)


def test_a_search_finds_a_front_of_networks_with_the_neuron_of_the_page(folder: Path, mine: ModuleType) -> None:
    result = CliRunner().invoke(app, ["search", "adaptive.toml"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    run = nas.Run("runs/adaptive")
    front, evaluations = run.front(), run.evaluations()
    assert (evaluations["state"] == "complete").all(), evaluations["failure"].tolist()
    subnet = run.load(front.iloc[0].key)
    neurons = [module for module in subnet.modules() if isinstance(module, mine.AdaptiveLIF)]
    assert len(neurons) == 5 + 5 * subnet.architecture.depth + 2 * subnet.architecture.depth
    assert any(neuron.beta.item() != pytest.approx(0.2, abs=1e-6) for neuron in neurons), "beta was trained"
    timed = CliRunner().invoke(app, ["profile", "adaptive-space.toml", "--time", "--batch", "2", "--rounds", "1"])
    assert timed.exit_code == 0, timed.output


def test_the_space_of_the_page_is_like_any_other(folder: Path) -> None:
    values = tomllib.loads(blocks("docs/neurons.md", "toml")[0])
    space = SearchSpace.from_dict(values)
    assert SearchSpace.from_dict(space.to_dict()) == space
    result = CliRunner().invoke(app, ["profile", "adaptive-space.toml", "--samples", "3"], catch_exceptions=False)
    assert "adaptive: " in result.output


# Speed


def test_commands_on_speed_run_as_written() -> None:
    shown = [line for block in blocks("docs/speed.md", "sh") for line in block.splitlines()]
    commands = [line for line in shown if line.startswith("nas ")]
    assert commands
    for line in commands:
        words = [*shlex.split(line)[1:], "--batch", "2", "--rounds", "1"]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output


def test_benchmarks_that_the_page_on_speed_names_are_there() -> None:
    named = re.findall(r"python (benchmarks/\w+\.py)", (ROOT / "docs/speed.md").read_text(encoding="utf-8"))
    assert len(named) >= 5
    assert all((ROOT / name).is_file() for name in named)


@pytest.mark.parametrize("name", [*EXECUTORS, *PRECISIONS])
def test_the_page_on_speed_says_what_every_executor_and_precision_is(name: str) -> None:
    assert f"| `{name}` |" in (ROOT / "docs/speed.md").read_text(encoding="utf-8")


# Swarms


def test_the_code_of_the_page_on_swarms_finds_optimum_and_front(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("docs/qpso.md", "python")
    assert len(code.splitlines()) <= 15
    names: dict[str, Any] = {}
    exec(compile(code, "qpso.md", "exec"), names)
    assert names["result"].F < 10  # 10,000 random points: about 70
    assert list(names["trace"].columns) == ["generation", "alpha", "acted", "diversity", "fitness_diversity"]
    assert len(names["front"].F) == 100
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_page_on_swarms_gives_the_thresholds_as_they_are() -> None:
    text = (ROOT / "docs/qpso.md").read_text(encoding="utf-8")
    for name, control in CONTROLS.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", text, flags=re.MULTILINE)
        limits = control.thresholds
        shown = [float(cell) for cell in row.split("|")[3:7]]
        assert shown == [limits.first, limits.last, limits.recovery, limits.until]


# Searches and recipes


def test_commands_on_searches_are_understood() -> None:
    shown = [line.split("#")[0] for block in blocks("docs/search.md", "sh") for line in block.splitlines()]
    search = typer.main.get_command(app).commands["search"]
    assert len(shown) == 4
    for line in shown:
        nas_, verb, *words = shlex.split(line)
        assert (nas_, verb) == ("nas", "search")
        assert search.make_context(verb, words).params["recipe"] == "digits"


@pytest.mark.parametrize("key", ["algorithm", "seconds", "stall", "warm_start", "constraints", "fitness"])
def test_the_page_on_searches_has_the_option_of_each_key(key: str) -> None:
    text = (ROOT / "docs/search.md").read_text(encoding="utf-8")
    assert f"--{key.removesuffix('s') if key == 'constraints' else key.replace('_', '-')}" in text
    assert key in SearchConfig.model_fields


def test_the_page_on_recipes_shows_every_key_and_every_default_that_is_not_an_example() -> None:
    shown = tomllib.loads(blocks("docs/recipes.md", "toml")[0])
    tables: dict[str, set[str]] = {
        "data": set(DataConfig.model_fields),
        "training": {field.name for field in fields(TrainSettings)},
        "scoring": set(ScoringConfig.model_fields),
        "search": set(SearchConfig.model_fields),
        "workers": set(WorkersConfig.model_fields),
    }
    assert set(shown) == set(RunConfig.model_fields) - {"table", "source"}
    for table, keys in tables.items():
        assert set(shown[table]) == keys
    default = RunConfig(name="x", space="digits", data=DataConfig(name="digits")).model_dump(mode="json")
    examples = {
        "name",
        "space",
        "data",
        "options",
        "storage",
        "scoring.validation_images",
        "search.hypervolume_reference",
    }
    examples |= {"storage"} | {
        *(f"search.{key}" for key in ("constraints", "seconds", "stall", "warm_start", "fitness")),
        "workers.address",
        "workers.timeout",
    }
    for key, value in shown.items():
        rows = {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {key: value}
        for name, given in rows.items():
            if key not in examples and name not in examples:
                table, _, inner = name.partition(".")
                assert given == (default[table][inner] if inner else default[table]), name


def test_the_page_on_recipes_shows_every_key_of_a_table() -> None:
    shown = tomllib.loads(blocks("docs/recipes.md", "toml")[1])
    assert set(shown["table"]) == set(TableConfig.model_fields)
    config = parse_recipe(shown, "docs/recipes.md")
    del shown["workers"]
    assert parse_recipe(shown, "docs/recipes.md") == config


def test_the_page_on_tables_shows_a_recipe() -> None:
    (shown,) = blocks("docs/tables.md", "toml")
    assert parse_recipe(tomllib.loads(shown), "docs/tables.md").lookup.test == {"val_acc_final": "test_acc"}
