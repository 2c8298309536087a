"""Recipes: shipped ones work, and every mistake in one is named in one line."""

import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from fakes import METRICS, RECIPE, write_recipe
from pydantic import ValidationError

from evaluators import build_evaluators
from nas.algorithms import ALGORITHMS
from nas.config import (
    DataConfig,
    RunConfig,
    ScoringConfig,
    SearchConfig,
    WorkersConfig,
    load_recipe,
    parse_recipe,
    recipe_names,
)
from nas.scoring import objective_senses
from spaces import InputError, load_space
from supernet.augment import build_augmentation
from supernet.data import DATASETS
from supernet.settings import TrainSettings
from supernet.spikformer import build_supernet

INPUTS = {"digits": (8, 1, 10), "fashion-mnist": (28, 1, 10), "mnist": (28, 1, 10), "cifar10": (32, 3, 10)}


@pytest.fixture
def load(tmp_path):
    def load(*changes):
        return load_recipe(write_recipe(tmp_path, *changes))

    return load


# Shipped recipes


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_names_things_that_exist(name):
    config = load_recipe(name)
    assert config.name == name
    assert config.data.name in DATASETS
    assert config.search.algorithm in ALGORITHMS
    assert set(build_evaluators(config.metrics, config.options)) == set(config.metrics)
    senses = objective_senses(config)
    assert (senses["accuracy"], senses["energy_mj"]) == ("max", "min")
    size, channels, classes = INPUTS[config.data.name]
    space = load_space(config.space).with_input(size, channels, classes)
    assert build_supernet(space, 0).architecture == space.largest()
    build_augmentation(config.training.augment, size, channels)
    assert space.size > config.search.evaluations >= 2 * config.search.population


def test_there_are_shipped_recipes_and_the_digits_one_is_small():
    assert {"digits", "fashion-mnist"} <= set(recipe_names())
    assert load_recipe("digits").search.evaluations <= 200


def test_a_recipe_of_four_lines_is_enough(tmp_path):
    (tmp_path / "short.toml").write_text('name = "short"\nspace = "digits"\n[data]\nname = "digits"\n')
    config = load_recipe(tmp_path / "short.toml")
    assert config.training == TrainSettings()
    assert (config.seed, config.search.algorithm, config.workers.pool) == (0, "nsga2", "ray")


# Mistakes

TABLES = {
    "": RunConfig.model_fields,
    "data": DataConfig.model_fields,
    "scoring": ScoringConfig.model_fields,
    "search": SearchConfig.model_fields,
    "workers": WorkersConfig.model_fields,
    "training": [field.name for field in fields(TrainSettings)],
}


@pytest.mark.parametrize("table", TABLES)
def test_unknown_keys_are_refused_by_name_with_the_known_ones(table, tmp_path):
    path = write_recipe(tmp_path)
    text = path.read_text()
    path.write_text(text.replace(f"[{table}]", f"[{table}]\nfrobs = 3") if table else f"frobs = 3\n{text}")
    dotted = f"{table}.frobs" if table else "frobs"
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert f"unknown key {dotted}; known keys here are {sorted(TABLES[table])}" in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_table_is_an_unknown_key(load):
    with pytest.raises(InputError, match=r"unknown key serach; known keys here are \['data', .*'search'.*\]"):
        load(("[search]", "[serach]"))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('name = "tiny"', 'name = "../up"', r"name .*pattern.*got '../up'"),
        ('name = "tiny"', 'name = ""', "name .*got ''"),
        ('name = "tiny"', "name = 3", "name should be a valid string, got 3"),
        ("seed = 9", "seed = -1", "seed should be greater than or equal to 0, got -1"),
        ("seed = 9", "seed = 4294967296", "seed should be less than 4294967296, got 4294967296"),
        ("seed = 9", "seed = 1.5", "seed .*integer.*, got 1.5"),
        ("seed = 9", 'seed = "3"', "seed should be a valid integer, got '3'"),
        ("seed = 9", "seed = true", "seed should be a valid integer, got True"),
        ('space = "space.toml"', "space = 3", "space should be a valid string, got 3"),
        (METRICS, "metrics = []", r"metrics .*at least 1 item.*, got \[\]"),
        (METRICS, 'metrics = "accuracy"', "metrics .*, got 'accuracy'"),
        (
            "train_images = 1000",
            "train_images = 19",
            "data.train_images should be .* or equal to 20, got 19",
        ),
        ("epochs = 2", "epochs = 0", "training.epochs must be 1 or more, got 0"),
        ("epochs = 2", "epochs = 1.5", "training.epochs .*integer.*, got 1.5"),
        ("epochs = 2", 'epochs = "two"', "training.epochs .*integer.*, got 'two'"),
        ("learning_rate = 1e-2", "learning_rate = 0.0", "training.learning_rate must be above 0, got 0.0"),
        ("learning_rate = 1e-2", "learning_rate = nan", "values must be texts, finite numbers, booleans"),
        ("warmup_epochs = 0.2", "warmup_epochs = 2", "training.warmup_epochs must be 0 or more and below epochs 2"),
        ("mixup = 0.0", "mixup = -0.1", "training.mixup must be 0 or more, got -0.1"),
        ("mixup = 0.0", 'precision = "half"', r"training.precision must be one of \['float32', 'bfloat16'\]"),
        ("mixup = 0.0", 'sampling = "double"', r"training.sampling must be one of \['sandwich', 'single'\]"),
        ("calibration_images = 32", "calibration_images = 1", "scoring.calibration_images .*or equal to 2, got 1"),
        ("validation_images = 60", "validation_images = 0", "scoring.validation_images .*or equal to 1, got 0"),
        ("population = 6", "population = 1", "search.population should be greater than or equal to 2, got 1"),
        ("population = 6", "objectives = []", r"search.objectives .*at least 1 item.*, got \[\]"),
        ("population = 6", "baseline = 1", "search.baseline should be a valid boolean, got 1"),
        ("evaluations = 16", "evaluations = 0", "search.evaluations should be greater than or equal to 1, got 0"),
        ("evaluations = 16", "evaluations = 2e1", "search.evaluations .*integer.*, got 20.0"),
        ('pool = "local"', 'pool = "slurm"', "workers.pool should be 'local' or 'ray', got 'slurm'"),
        ('pool = "local"', "threads = 1025", "workers.threads should be less than or equal to 1024"),
        ('pool = "local"', "count = 0", "workers.count should be greater than or equal to 1, or 'auto', got 0"),
        ('[workers]\npool = "local"', "workers = 2", "workers .*, got 2"),
        ("seed = 9", "seed = 1979-05-27", "values must be texts, finite numbers, booleans, lists or tables"),
    ],
    ids=lambda text: text[:40],
)
def test_wrong_values_are_refused_with_rule_and_fact(old, new, text, tmp_path):
    path = write_recipe(tmp_path)
    whole = RECIPE.replace(old, new, 1)
    assert whole != RECIPE
    if new == "workers = 2":
        whole = "workers = 2\n" + RECIPE.replace(old, "")
    path.write_text(whole)
    with pytest.raises(InputError, match=text) as error:
        load_recipe(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_hypervolume_reference_must_be_finite(value, load):
    with pytest.raises(InputError, match="finite"):
        load(("population = 6", f"hypervolume_reference = {{ accuracy = 0.0, energy_mj = {value} }}"))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('name = "tiny"\n', "name"),
        ('space = "space.toml"\n', "space"),
        ('[data]\nname = "digits"\ntrain_images = 1000\n', "data"),
    ],
)
def test_missing_keys_are_named(line, key, tmp_path):
    path = write_recipe(tmp_path)
    path.write_text(RECIPE.replace(line, "", 1))
    with pytest.raises(InputError, match=f"missing key {key}$"):
        load_recipe(path)


def test_a_missing_key_of_a_table_is_named_with_its_table(load):
    with pytest.raises(InputError, match=r"missing key data\.name"):
        load(('[data]\nname = "digits"', "[data]"))


def test_all_faults_are_said_in_one_line(load):
    with pytest.raises(InputError) as error:
        load(
            ("seed = 9", "seed = -3\ncolour = 1"),
            ("population", "populatoin"),
            ("epochs = 2", 'epochs = "2"'),
        )
    text = str(error.value)
    for part in ("seed should be", "unknown key colour", "unknown key search.populatoin", "training.epochs"):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"name = ", "must be a TOML file: "),
        (b"name = 'a'\nname = 'b'", "must be a TOML file: "),
        (b"\xff\xfe", "must be a TOML file: "),
        (b"name = " + b"[" * 9999, "must be a TOML file: "),
        (b"", "missing key name; missing key space; missing key data"),
    ],
    ids=["half", "twice", "not utf-8", "too deep", "empty"],
)
def test_files_that_are_no_recipes_are_refused(content, text, tmp_path):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(InputError, match=text) as error:
        load_recipe(tmp_path / "bad.toml")
    assert "bad.toml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a\\u0000b", "a" * 300], ids=["null byte", "too long"])
@pytest.mark.parametrize(
    "line",
    [
        'space = "NAME.toml"',
        'metrics = ["energy_mj:NAME.toml"]',
        'table = { file = "NAME", genes = ["a"], metrics = { b = "max" } }',
        'search = { warm_start = "NAME" }',
    ],
    ids=["space", "energy model", "table", "warm start"],
)
def test_a_name_that_no_file_can_have_is_refused(line, name, tmp_path):
    (tmp_path / "odd.toml").write_text(f'name = "odd"\n{line.replace("NAME", name)}\n')
    with pytest.raises(InputError, match="must be a path, got ") as error:
        load_recipe(tmp_path / "odd.toml")
    assert len(str(error.value)) < 200


def test_a_missing_file_and_an_unknown_name_are_refused_with_the_known_names(tmp_path):
    with pytest.raises(InputError, match=r"no recipe at .*none\.toml; named recipes are \['digits', .*'\]"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"a recipe is one of \['digits', .*\] or the path of .* file, got 'mars'"):
        load_recipe("mars")


def test_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match=r"recipe .*folder\.toml cannot be read"):
        load_recipe(tmp_path / "folder.toml")


# Paths


def test_a_space_path_is_relative_to_the_recipe_not_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "deep" / "spaces").mkdir(parents=True)
    path = write_recipe(tmp_path / "deep", ("space.toml", "spaces/mine.toml"))
    (tmp_path / "deep" / "space.toml").rename(tmp_path / "deep" / "spaces" / "mine.toml")
    monkeypatch.chdir(tmp_path)
    for name in (path, Path("deep/tiny.toml"), "deep/tiny.toml"):
        config = load_recipe(name)
        assert Path(config.space) == (tmp_path / "deep/spaces/mine.toml").resolve()
        assert load_space(config.space).size == 288


def test_an_absolute_space_path_and_a_named_space_stay_as_they_are(load, tmp_path):
    elsewhere = tmp_path / "elsewhere.toml"
    write_recipe(tmp_path)
    shutil.copy(tmp_path / "space.toml", elsewhere)
    assert load(("space.toml", str(elsewhere))).space == str(elsewhere)
    assert load(("space.toml", "digits")).space == "digits"


# Immutable values


def test_a_recipe_cannot_be_changed_in_place(load):
    config = load()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 4
    with pytest.raises(ValidationError, match="frozen"):
        config.search.evaluations = 4


def test_changed_returns_another_recipe_and_leaves_the_first_alone(load):
    config = load()
    before = config.model_dump()
    changed = config.changed(
        search={"evaluations": 50}, run={"seed": 9}, training={"epochs": 5}, workers={"count": 3}
    )
    assert (changed.search.evaluations, changed.seed, changed.training.epochs) == (50, 9, 5)
    assert changed.search.population == config.search.population
    assert config.model_dump() == before
    assert config.changed() == config


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"search": {"evaluations": 0}}, "recipe 'tiny' with changes: search.evaluations should be greater"),
        ({"search": {"budget": 5}}, r"unknown key search.budget; known keys here are \['algorithm', .*\]"),
        ({"run": {"sede": 5}}, "unknown key sede; known keys here are"),
        (
            {"training": {"warmup_epochs": 7.0}},
            "training.warmup_epochs must be 0 or more and .*, got 7.0",
        ),
        ({"workers": {"pool": 1j}}, "values must be texts, finite numbers, booleans, lists or tables"),
        ({"serach": {"evaluations": 5}}, "serach"),
        ({"search": [5]}, r"recipe 'tiny' with changes: search must be a table, got \[5\]"),
        ({"run": None}, "recipe 'tiny' with changes: run must be a table, got None"),
    ],
    ids=str,
)
def test_changes_are_checked_like_a_recipe(changes, text, load):
    config = load()
    with pytest.raises(InputError, match=text):
        config.changed(**changes)


def test_a_dumped_recipe_is_read_back_as_the_same(load):
    config = load((METRICS, 'metrics = ["f_aeb", "accuracy", "energy_mj"]\noptions.f_aeb.form = "sum"'))
    assert parse_recipe(config.model_dump(mode="json"), "dump") == config
