"""Where the energy goes: tables and pictures of a run's networks, and energies under models as objectives."""

import io
import json
import re
import shutil
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from fakes import LITTLE, METRICS, write_recipe

import nas
from evaluators import (
    MODEL_METRICS,
    UNDER_MODELS,
    build_evaluators,
    compare,
    energy_mj,
    energy_model_names,
    load_energy_model,
    parse_energy_model,
)
from nas.energy import front_energy_figure, layers_figure, layers_frame, load_models, models_frame, shares_figure
from nas.folder import RUN
from nas.report import write_report
from nas.scoring import Scorer
from spaces import InputError

MODELS = load_models()
BOARD = 'title = "t"\nsource = "s"\nchecked = "measured"\n[operations]\nmac = 9.2\naccumulate = 1.8\n'


@pytest.fixture(scope="module")
def counted(finished):
    """Counts of the first member of the front, by its key."""
    return finished.operations([finished.front()["key"][0]])


@pytest.fixture
def counts(counted):
    (only,) = counted.values()
    return only


def test_counts_are_those_of_the_search(finished, counted):
    front = finished.front()
    ((key, counts),) = counted.items()
    assert key == front["key"][0]
    assert counts.images == 60
    assert energy_mj(counts, load_energy_model("sop45")) == front["energy_mj"][0]
    assert counts.spikes_per_image == front["spikes"][0]


def test_fewer_images_are_counted_if_asked_for(finished):
    keys = finished.front()["key"].tolist()
    some = finished.operations(keys, images=7)
    assert list(some) == keys
    assert {counts.images for counts in some.values()} == {7}


def test_rows_of_layers_add_up_to_the_energy_under_each_model(counts):
    frame = layers_frame(counts, MODELS)
    assert frame["layer"].tolist() == [*counts.layers, *counts.neurons]
    for model in MODELS:
        assert frame[f"energy_mj:{model.name}"].sum() == pytest.approx(energy_mj(counts, model))
    assert frame["spikes"].sum() == pytest.approx(counts.spikes_per_image)
    assert frame["macs"].sum() == pytest.approx(counts.macs_per_image)


def test_firing_rates_of_timesteps_average_to_that_of_the_layer(counts):
    frame = layers_frame(counts, MODELS)
    neurons = frame[frame["kind"] == "neuron"]
    steps = [column for column in frame.columns if re.fullmatch(r"rate_\d+", column)]
    assert len(steps) == counts.timesteps
    assert neurons[steps].mean(axis=1).tolist() == pytest.approx(neurons["rate"].tolist())


def test_rows_of_models_have_kinds_and_the_comparison(counts):
    frame = models_frame(counts, MODELS).set_index("model")
    assert frame.index.tolist() == energy_model_names()
    kinds = frame[["convolution", "linear", "product", "neuron"]].sum(axis=1)
    assert kinds.tolist() == pytest.approx(frame["energy_mj"].tolist())
    for model in MODELS:
        assert frame.loc[model.name, "qnn_ratio"] == compare(counts, model).qnn_ratio
    assert frame.loc["sop45", "neuron"] == 0
    assert frame.loc["memory", "neuron"] > 0


def test_pictures_show_what_the_tables_say(counts, counted):
    shares = shares_figure(counts, MODELS)
    assert [sum(bars) for bars in zip(*(trace.y for trace in shares.data), strict=True)] == pytest.approx(
        [100.0] * len(MODELS)
    )
    layers = layers_figure(counts, MODELS[0])
    assert sum(sum(trace.y) for trace in layers.data) == pytest.approx(energy_mj(counts, MODELS[0]))
    front = front_energy_figure(counted, MODELS)
    shown = [trace for trace in front.data if trace.visible]
    assert len(shown) == 4
    assert sum(sum(trace.y) for trace in shown) == pytest.approx(energy_mj(counts, MODELS[0]))
    menu = front.layout.updatemenus[0].buttons
    assert [button.label for button in menu] == energy_model_names()
    for number, button in enumerate(menu):
        visible = [trace for trace, on in zip(front.data, button.args[0]["visible"], strict=True) if on]
        assert sum(sum(trace.y) for trace in visible) == pytest.approx(energy_mj(counts, MODELS[number]))


# The command


@pytest.mark.parametrize("form", ["json", "csv"])
def test_the_command_prints_all_layers_with_all_their_digits(form, command, finished, counted):
    ((key, counts),) = counted.items()
    code, out, err = command("energy", finished.folder, key[:8], "-f", form)
    assert (code, err) == (0, "")
    frame = pd.DataFrame(json.loads(out)) if form == "json" else pd.read_csv(io.StringIO(out))
    expected = layers_frame(counts, MODELS)
    assert frame.columns.tolist() == expected.columns.tolist()
    for model in MODELS:
        assert frame[f"energy_mj:{model.name}"].tolist() == expected[f"energy_mj:{model.name}"].tolist()


def test_the_summary_is_one_row_per_model_that_was_asked_for(command, finished, counted):
    ((key, counts),) = counted.items()
    arguments = ["--model", "strict", "--model", "sop45", "--summary", "-f", "csv"]
    code, out, _ = command("energy", finished.folder, key, *arguments)
    assert code == 0
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO(out)), models_frame(counts, load_models(["strict", "sop45"])), check_dtype=False
    )


def test_the_table_shows_layers_and_models(command, finished, counted, tmp_path):
    ((key, counts),) = counted.items()
    picture = tmp_path / "energy.html"
    code, out, err = command("energy", finished.folder, key, "--model", "sop45", "--html", picture)
    assert (code, err) == (0, "")
    assert out.startswith(f"{key}: millijoules per image by model, over 60 validation images")
    assert f"{key}: microjoules per image by layer" in out
    for name in (*counts.layers, *counts.neurons):
        assert name in out
    assert "break_even_rate" in out
    html = picture.read_text(encoding="utf-8")
    assert len(re.findall(r"Plotly\.newPlot\(\s*\"", html)) == 2
    assert "<script src" not in html


def test_a_model_of_the_user_is_shown_by_the_name_of_its_file(command, finished, counted, tmp_path):
    (key,) = counted
    (tmp_path / "board.toml").write_text(
        'title = "t"\nsource = "s"\nchecked = "measured"\n[operations]\nmac = 2\naccumulate = 1\n', encoding="utf-8"
    )
    code, out, _ = command("energy", finished.folder, key, "--model", tmp_path / "board.toml", "-f", "csv")
    assert code == 0
    assert out.splitlines()[0].endswith(",energy_mj:board")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing"], "a key must name one evaluated architecture, but 'nothing' names 0"),
        (["", "--model", "speed"], "an energy model is one of"),
        (["", "--model", "sop45", "--model", "sop45"], "energy models must differ in name, got sop45 more than once"),
        (["", "--html", "none/x.html"], "--html must be a file in a folder that exists, got none/x.html"),
        (["", "--html", "/proc"], "--html must be a file in a folder that exists, got /proc"),
    ],
    ids=["key", "model", "twice", "folder", "a folder"],
)
def test_wrong_input_of_the_command_is_one_line(arguments, text, command, finished):
    code, out, err = command("energy", finished.folder, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert text in err
    assert len(err.splitlines()) == 1


def test_a_picture_that_cannot_be_written_is_one_line(command, finished, counted):
    (key,) = counted
    code, _, err = command("energy", finished.folder, key, "--model", "sop45", "--html", "/proc/energy.html")
    assert code == 2
    assert err.startswith("error: the picture must be writable, but /proc/energy.html")


def test_two_files_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "board.toml").write_text(BOARD, encoding="utf-8")
    with pytest.raises(InputError, match="energy models must differ in name, got board more than once"):
        load_models([str(tmp_path / "a/board.toml"), str(tmp_path / "b/board.toml")])


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), MemoryError(), ValueError("shape"), OverflowError("x")])
def test_what_the_engine_raises_is_wrong_input_and_no_end_of_a_report(error, finished, copied, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(Scorer, "outcomes", fail)
    with pytest.raises(InputError, match=f"operations cannot be counted: {type(error).__name__}"):
        finished.operations([finished.front()["key"][0]])
    page = write_report(nas.Run(copied)).read_text(encoding="utf-8")
    assert f"It cannot be counted: operations cannot be counted: {type(error).__name__}" in page


def test_a_model_without_a_ratio_still_has_its_row(counts):
    free = parse_energy_model("free", tomllib.loads(BOARD) | {"operations": {"mac": 0, "accumulate": 0}}, "free")
    frame = models_frame(counts, [free])
    assert frame["qnn_ratio"].isna().all()


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_the_tables_of_all_models_fit_a_screen(columns, command, finished, counted, monkeypatch):
    ((key, counts),) = counted.items()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    code, out, _ = command("energy", finished.folder, key)
    assert code == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", out)
    table = [line for line in text.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, table)) <= columns
    assert "…" not in text
    for name in (*energy_model_names(), *counts.layers, *counts.neurons, "break_even_rate", "sop45"):
        assert name in text
    assert text.index("millijoules per image by model") < text.index("microjoules per image by layer")
    assert "for want of width without convolution, linear, product, neuron" in text
    assert text.rindex("for want of width without") > text.index("microjoules per image by layer")
    assert ", strict; choose by --model" in text


def test_what_is_no_screen_gets_tables_without_dots(command, finished, counted):
    (key,) = counted
    code, out, _ = command("energy", finished.folder, key)
    assert code == 0
    assert "…" not in out


def test_values_that_come_and_go_stand_in_the_frame(counts):
    frame = layers_frame(counts, []).set_index("layer")
    for name, row in counts.layers.items():
        found = frame.loc[name, ["inputs", "events", "outputs"]] * counts.images
        assert found.tolist() == pytest.approx([row.inputs, row.events, row.outputs])
        assert frame.loc[name, "weights"] == row.weights


# Energies under models as objectives


@pytest.fixture(scope="module")
def owning(tmp_path_factory):
    """Folder with a recipe under a model of one's own, its file, and its run."""
    folder = tmp_path_factory.mktemp("owning")
    (folder / "board.toml").write_text(BOARD, encoding="utf-8")
    metrics = 'metrics = ["accuracy", "energy_mj", "energy_mj:board.toml"]'
    recipe = write_recipe(folder, LITTLE, (METRICS, metrics))
    recipe.write_text(
        recipe.read_text().replace("[search]", '[search]\nobjectives = ["accuracy", "energy_mj:board"]')
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPIKEFRONT_DATA", raising=False)
        nas.search(recipe, folder / "run", search={"evaluations": 6, "baseline": False})
    return folder


@pytest.fixture
def own(owning, tmp_path):
    """A copy of it, to be changed; the paths in the run are those of the original, which is not there."""
    folder = Path(shutil.copytree(owning, tmp_path / "own"))
    values = json.loads((folder / "run" / RUN).read_text())
    values["recipe"]["metrics"] = ["accuracy", "energy_mj", f"energy_mj:{folder / 'board.toml'}"]
    (folder / "run" / RUN).write_text(json.dumps(values))
    return folder


def test_a_run_owns_its_models(own, command):
    values = json.loads((own / "run" / RUN).read_text())
    assert values["energy_models"] == {"board": tomllib.loads(BOARD)}
    expected = nas.Run(own / "run").front()
    (own / "board.toml").unlink()
    run = nas.Run(own / "run")
    assert [model.name for model in run.energy_models] == ["board", "sop45"]
    pd.testing.assert_frame_equal(run.front(), expected)
    key = expected["key"][0]
    assert command("front", run.folder)[0] == 0
    assert command("report", run.folder)[0] == 0
    code, out, _ = command("energy", run.folder, key, "--summary", "-f", "csv")
    assert code == 0
    frame = pd.read_csv(io.StringIO(out)).set_index("model")
    assert frame.index.tolist() == ["board", *energy_model_names()]
    assert frame.loc["board", "energy_mj"] == pytest.approx(expected["energy_mj:board"][0])
    assert command("energy", run.folder, key, "--model", "board")[0] == 0
    again = nas.search(own / "tiny.toml", own / "run", search={"evaluations": 7, "baseline": False})
    frame = again.evaluations()
    assert len(frame) == 7
    assert frame["energy_mj:board"].tolist() == pytest.approx((2 * frame["energy_mj"]).tolist())


def test_an_edited_model_changes_no_run_and_is_refused_for_going_on(own, snapshot):
    (own / "board.toml").write_text(BOARD.replace("9.2", "7.5"), encoding="utf-8")
    run = nas.Run(own / "run")
    assert run.energy_models[0].operations.mac == 9.2
    before = snapshot(own / "run")
    text = (
        r"differs in energy_models.board.operations.mac \(9.2 there, 7.5 here\).*goes on with the copy that it keeps"
    )
    with pytest.raises(InputError, match=text):
        nas.search(own / "tiny.toml", own / "run", search={"evaluations": 7, "baseline": False})
    assert snapshot(own / "run") == before


def test_a_run_from_before_runs_owned_their_models_still_opens(own):
    values = json.loads((own / "run" / RUN).read_text())
    del values["energy_models"]
    (own / "run" / RUN).write_text(json.dumps(values))
    assert nas.Run(own / "run").energy_models[0].operations.mac == 9.2
    nas.search(own / "tiny.toml", own / "run", search={"evaluations": 6, "baseline": False})
    assert json.loads((own / "run" / RUN).read_text())["energy_models"] == {"board": tomllib.loads(BOARD)}


def test_the_first_view_of_a_report_is_the_model_of_the_objective(own):
    page = (own / "run" / "report.html").read_text(encoding="utf-8")
    assert page.index('"label":"board"') < page.index('"label":"sop45"') < page.index('"label":"memory"')


def test_a_file_given_from_python_is_relative_to_the_working_directory(recipe, tmp_path, monkeypatch):
    (tmp_path / "board.toml").write_text(BOARD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = nas.load_recipe(recipe).changed(run={"metrics": ["accuracy", "energy_mj:board.toml", "mine:a.toml"]})
    assert config.metrics == ("accuracy", f"energy_mj:{tmp_path / 'board.toml'}", "mine:a.toml")


def test_metrics_under_models_are_those_of_the_evaluators():
    assert set(MODEL_METRICS) == set(UNDER_MODELS)


@pytest.mark.parametrize("metric", ["energy_mj", "qnn_ratio", "energy_mj:strict"])
def test_a_model_is_no_option(metric):
    with pytest.raises(InputError, match=rf"{metric} has the options \[\], got \['model'\]"):
        build_evaluators([metric], {metric: {"model": "memory"}})


def test_two_models_of_one_name_in_a_recipe_are_refused(recipe, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "board.toml").write_text(BOARD, encoding="utf-8")
    metrics = [
        "accuracy",
        "energy_mj",
        f"energy_mj:{tmp_path / 'a/board.toml'}",
        f"qnn_ratio:{tmp_path / 'b/board.toml'}",
    ]
    with pytest.raises(InputError, match=r"energy models must differ in name, but .*are 'board'"):
        nas.train(recipe, tmp_path / "run", run={"metrics": metrics})


def test_a_search_for_energy_under_a_model_of_ones_own_keeps_its_columns(tmp_path, command):
    (tmp_path / "board.toml").write_text(
        'title = "t"\nsource = "s"\nchecked = "measured"\n[operations]\nmac = 9.2\naccumulate = 1.8\n',
        encoding="utf-8",
    )
    metrics = 'metrics = ["accuracy", "energy_mj", "energy_mj:board.toml", "energy_mj:memory", "qnn_ratio:memory"]'
    recipe = write_recipe(tmp_path, (METRICS, metrics), ("epochs = 2", "epochs = 1"))
    recipe.write_text(
        recipe.read_text().replace(
            "[search]", '[search]\nobjectives = ["accuracy", "energy_mj:board", "qnn_ratio:memory"]'
        )
    )
    run = nas.search(recipe, tmp_path / "run", search={"evaluations": 8, "baseline": False})
    names = ["accuracy", "energy_mj", "energy_mj:board", "energy_mj:memory", "qnn_ratio:memory"]
    frame = run.evaluations()
    assert run.metrics == names
    assert set(names) <= set(frame.columns)
    assert frame["energy_mj:board"].tolist() == pytest.approx((2 * frame["energy_mj"]).tolist())
    assert (frame["qnn_ratio:memory"] > 0).all()
    assert list(run.reference) == ["accuracy", "energy_mj:board", "qnn_ratio:memory"]
    assert "test_energy_mj:board" in run.front().columns
    code, out, _ = command("front", run.folder, "-f", "csv")
    assert code == 0
    assert "energy_mj:board" in out.splitlines()[0]
    assert "energy_mj:memory" in (run.folder / "report.html").read_text(encoding="utf-8")
    again = nas.search(recipe, tmp_path / "run", search={"evaluations": 9, "baseline": False})
    assert len(again.evaluations()) == 9
