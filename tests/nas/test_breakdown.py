"""Where the energy goes: tables and pictures of a run's networks, and energies under models as objectives."""

import io
import json
import re

import pandas as pd
import pytest
from fakes import METRICS, write_recipe

import nas
from evaluators import compare, energy_mj, energy_model_names, load_energy_model
from nas.energy import front_energy_figure, layers_figure, layers_frame, load_models, models_frame, shares_figure

MODELS = load_models()


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
    assert out.startswith(f"{key}: microjoules per image by layer, over 60 validation images")
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
    ],
    ids=["key", "model"],
)
def test_wrong_input_of_the_command_is_one_line(arguments, text, command, finished):
    code, out, err = command("energy", finished.folder, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert text in err
    assert len(err.splitlines()) == 1


# Energies under models as objectives


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
