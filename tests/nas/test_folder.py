"""The run folder: which recipe it belongs to, and what it says about itself."""

import json
import platform

import pytest
from fakes import write_recipe

from nas.config import load_recipe
from nas.folder import RUN, STORE, create_folder, open_recipe, read_run
from spaces import InputError


@pytest.fixture
def config(tmp_path):
    return load_recipe(write_recipe(tmp_path))


def test_a_folder_says_with_what_where_and_when_it_was_made(config, space, tmp_path):
    values = create_folder(tmp_path / "a" / "b", config, space, None)
    assert read_run(tmp_path / "a" / "b") == values == json.loads((tmp_path / "a" / "b" / RUN).read_text())
    facts = values["facts"]
    assert facts["python"] == platform.python_version()
    assert facts["cores"] >= 1
    assert facts["started"].endswith("+00:00")
    assert all(facts["versions"][name] for name in ("torch", "pymoo", "ray", "optuna", "spikefront"))
    assert (config, space) == open_recipe(tmp_path / "a" / "b")


def test_going_on_keeps_when_and_where_the_run_started(config, space, tmp_path):
    first = create_folder(tmp_path / "a", config, space, None)
    path = tmp_path / "a" / RUN
    path.write_text(path.read_text().replace(first["facts"]["started"], "2001-01-01T00:00:00+00:00"))
    again = create_folder(tmp_path / "a", config, space, None)
    assert again["facts"]["started"] == "2001-01-01T00:00:00+00:00"


def test_a_folder_that_is_older_than_some_keys_is_continued_with_their_defaults(config, space, tmp_path):
    create_folder(tmp_path / "a", config, space, None)
    path = tmp_path / "a" / RUN
    values = json.loads(path.read_text())
    for key in ("executor", "device"):
        del values["recipe"][key]
    for key in ("precision", "cache_mb"):
        del values["recipe"]["scoring"][key]
    path.write_text(json.dumps(values))
    assert open_recipe(tmp_path / "a") == (config, space)
    create_folder(tmp_path / "a", config, space, None)
    with pytest.raises(InputError, match=r"scoring.precision \('exact' there, 'int8' here\)"):
        create_folder(tmp_path / "a", config.changed(scoring={"precision": "int8"}), space, None)


@pytest.mark.parametrize(
    "changes",
    [{"search": {"evaluations": 99}}, {"workers": {"pool": "ray", "count": 7}}, {"scoring": {"cache_mb": 1}}],
    ids=["a longer search", "other workers", "less memory"],
)
def test_what_continues_a_run_is_taken_and_recorded(changes, config, space, tmp_path):
    create_folder(tmp_path / "a", config, space, None)
    create_folder(tmp_path / "a", config.changed(**changes), space, None)
    assert open_recipe(tmp_path / "a")[0] == config.changed(**changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"run": {"seed": 4}}, r"seed \(9 there, 4 here\)"),
        ({"run": {"metrics": ["accuracy", "energy_mj"]}}, "metrics"),
        ({"run": {"metrics": ["accuracy", "energy_mj", "f_aeb"]}, "options": {"f_aeb": {"form": "sum"}}}, "options"),
        ({"data": {"train_images": 100}}, r"data.train_images \(1000 there, 100 here\)"),
        ({"training": {"epochs": 3}}, r"training.epochs \(2 there, 3 here\)"),
        ({"scoring": {"batch_size": 32}}, r"scoring.batch_size \(64 there, 32 here\)"),
        ({"search": {"population": 7}}, r"search.population \(6 there, 7 here\)"),
        ({"search": {"objectives": ["energy_mj", "accuracy"]}}, "search.objectives"),
        ({"search": {"algorithm": "random"}}, r"search.algorithm \('nsga2' there, 'random' here\)"),
        ({"workers": {"threads": 2}}, r"workers.threads \(1 there, 2 here\)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_folder_of_another_recipe_is_refused_and_left_alone(changes, name, config, space, tmp_path, snapshot):
    create_folder(tmp_path / "a", config, space, None)
    (tmp_path / "a" / STORE).touch()  # its search has begun
    before = snapshot(tmp_path / "a")
    text = f"holds a run of another recipe, which differs in .*{name}.*; choose another folder with --out"
    with pytest.raises(InputError, match=text) as error:
        create_folder(tmp_path / "a", config.changed(**changes), space, None)
    assert "\n" not in str(error.value)
    assert snapshot(tmp_path / "a") == before


def test_a_folder_of_another_space_is_refused(config, space, tmp_path):
    create_folder(tmp_path / "a", config, space, None)
    with pytest.raises(InputError, match=r"differs in space.skeleton.image_size \(8 there, 16 here\)"):
        create_folder(tmp_path / "a", config, space.with_input(16, 1, 10), None)


def test_the_same_space_from_a_file_that_was_moved_is_the_same_run(config, space, tmp_path):
    """A project that is moved, folder and all, must be able to go on."""
    create_folder(tmp_path / "a", config, space, None)
    moved = tmp_path / "moved"
    moved.mkdir()
    create_folder(tmp_path / "a", load_recipe(write_recipe(moved)), space, None)
    assert open_recipe(tmp_path / "a")[1] == space


@pytest.mark.parametrize("where", ["file", "file/below", "file/far/below"])
def test_a_folder_that_cannot_be_written_is_refused(where, config, space, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match=r"the run folder must be writable, but .*file.*; choose another with --out"):
        create_folder(tmp_path / where, config, space, None)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("name", [RUN, STORE, ".lock", "report.html", "front.csv"])
def test_a_folder_in_the_place_of_a_file_is_refused(name, config, space, tmp_path):
    (tmp_path / "a" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=f"{name} of the run folder .* must be files, got folders; move them away"):
        create_folder(tmp_path / "a", config, space, None)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"is not a run folder: it has no run\.json; start one with `nas search`"),
        (b"{", r"run\.json cannot be read"),
        (b"\xff", r"run\.json cannot be read"),
        (b"[" * 99999, r"run\.json cannot be read"),
        (b'{"format": "\\ud800"}', r"run\.json cannot be read"),
        (b"[]", r"run\.json must be of format spikefront-run-1"),
        (b'{"format": "spikefront-run-1"}', r"run\.json must be of format spikefront-run-1 with the keys"),
        (
            b'{"format": "2", "recipe": 1, "space": 1, "data_dir": 1, "facts": 1}',
            "must be of format spikefront-run-1",
        ),
    ],
    ids=["none", "half", "no text", "too deep", "half a character", "a list", "keys missing", "another format"],
)
def test_what_is_no_run_folder_is_refused(content, text, tmp_path):
    if content is not None:
        (tmp_path / RUN).write_bytes(content)
    with pytest.raises(InputError, match=text):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("recipe", {"name": "x"}, r"run\.json: missing key space"),
        ("recipe", [], r"run\.json must be of format"),
        ("facts", {}, r"run\.json must be of format"),
        ("space", {"name": "x"}, r"run\.json: a space has exactly the keys"),
        ("space", "digits", r"run\.json must be of format"),
    ],
    ids=["recipe without space", "recipe a list", "no facts", "space without genes", "space a name"],
)
def test_a_run_file_with_wrong_content_is_refused(key, value, text, config, space, tmp_path):
    values = create_folder(tmp_path / "a", config, space, None)
    (tmp_path / "a" / RUN).write_text(json.dumps({**values, key: value}))
    with pytest.raises(InputError, match=text):
        open_recipe(tmp_path / "a")


def test_a_damaged_run_file_is_not_written_over(config, space, tmp_path):
    create_folder(tmp_path / "a", config, space, None)
    (tmp_path / "a" / RUN).write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        create_folder(tmp_path / "a", config, space, None)
    assert (tmp_path / "a" / RUN).read_text() == "{"
