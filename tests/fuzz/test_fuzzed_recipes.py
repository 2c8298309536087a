"""Fuzzed recipes: refused in one line, or a run that has what was asked for."""

import json

import pytest
from handed import (
    COSTS,
    LISTED,
    SPACE,
    SUPERNET,
    TABLE,
    answered,
    command,
    digests,
    folder,
    fuzz,
    portions,
    results,
    tried,
)
from hypothesis import strategies as st
from mutations import damaged, mutated, toml_text

import nas
from nas.config import load_recipe, parse_recipe
from nas.pipeline import prepare

recipes = st.sampled_from([TABLE, SUPERNET])


def write_around(place):
    """Write what the recipes name into a folder."""
    results().to_csv(place / "results.csv", index=False)
    (place / "space.toml").write_text(toml_text(SPACE))
    (place / "costs.toml").write_text(toml_text(COSTS))
    (place / "list.json").write_text(json.dumps(LISTED))


def small(config):
    """Return whether a run of a recipe takes a moment only: of a table, in this process."""
    search = config.search
    return config.table is not None and config.workers.pool == "local" and search.population * search.expand <= 100


def run_or_refuse(place, path):
    """Check a recipe that lies in a folder: searched if that is quick, prepared to where work would begin if not."""
    before, out = digests(place), place / "run"
    config, _ = tried(load_recipe, path)
    if config is None or small(config):
        found = answered(command("search", path, "--out", out, "-f", "json"))
    else:
        found, _ = tried(prepare, path, out, None, {})
        if found:
            return
    if not found:
        assert {name: digest for name, digest in digests(place).items() if not name.startswith("run/")} == before
        return
    frame = nas.Run(out).evaluations()
    assert 1 <= len(frame) <= min(config.search.evaluations, len(results()))
    assert frame["key"].is_unique
    assert frame["state"].isin(["complete", "failed"]).all()


@portions(250, 1200)
def test_plain_values_make_a_recipe_that_can_be_read_back_or_are_refused(examples):
    def check(values):
        config, why = tried(parse_recipe, values, "values")
        assert why is None or why.startswith("values: ")
        if why is None:
            assert parse_recipe(json.loads(json.dumps(config.to_dict())), "values") == config

    fuzz(check, examples, values=recipes.flatmap(mutated))


@portions(150, 700)
def test_changed_values_make_a_recipe_or_are_refused(examples):
    def check(base, changes):
        config = parse_recipe(base, "values")
        changed, why = tried(lambda: config.changed(**changes))
        assert why is None or why.startswith("recipe ")
        if why is None:
            assert parse_recipe(changed.to_dict(), "values").to_dict() == changed.to_dict()

    tables = st.sampled_from(["search", "workers", "training", "scoring", "table", "data", "options"])
    changes = recipes.flatmap(mutated).flatmap(
        lambda values: st.builds(lambda names: {n: values[n] for n in names if n in values}, st.lists(tables))
    )
    fuzz(check, examples, base=recipes, changes=changes)


@portions(60, 800)
@pytest.mark.parametrize("recipe", [TABLE, SUPERNET], ids=["table", "supernet"])
def test_a_recipe_of_changed_structure_runs_or_is_refused(recipe, examples):
    def check(values):
        with folder() as place:
            write_around(place)
            (place / "recipe.toml").write_text(toml_text(values), encoding="utf-8")
            run_or_refuse(place, place / "recipe.toml")

    fuzz(check, examples // 2, values=mutated(recipe))


@portions(50, 800)
@pytest.mark.parametrize("recipe", [TABLE, SUPERNET], ids=["table", "supernet"])
def test_a_recipe_of_changed_bytes_runs_or_is_refused(recipe, examples):
    def check(content):
        with folder() as place:
            write_around(place)
            (place / "recipe.toml").write_bytes(content)
            run_or_refuse(place, place / "recipe.toml")

    fuzz(check, examples // 2, content=damaged(toml_text(recipe).encode()))
