"""Energy models: every shipped file is valid and says where its figures come from; wrong files are refused."""

import re
import tomllib
from pathlib import Path

import pytest

import evaluators
from evaluators import DEFAULT_MODEL, energy_model_names, load_energy_model, parse_energy_model
from spaces import InputError

FOLDER = Path(evaluators.__file__).parent / "models"


def test_the_shipped_models_are_those_that_the_documentation_names():
    page = (FOLDER.parents[1] / "docs/energy.md").read_text(encoding="utf-8")
    assert energy_model_names()[0] == DEFAULT_MODEL == "sop45"
    assert sorted(energy_model_names()) == sorted(path.stem for path in FOLDER.glob("*.toml"))
    assert {"sop45", "nonzero", "strict", "published", "memory", "fp16", "int8", "loihi"} <= set(energy_model_names())
    assert set(energy_model_names()) <= set(re.findall(r"`([a-z0-9]+)`", page))


def test_the_file_that_the_documentation_shows_is_valid():
    page = (FOLDER.parents[1] / "docs/energy.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    model = parse_energy_model("board", tomllib.loads(block), "energy.md")
    assert model.counting == load_energy_model("sop45").counting, "the page says that these are the defaults"
    assert model.memory.dense_reuse == 1


@pytest.mark.parametrize("name", energy_model_names())
def test_a_shipped_model_is_valid_and_states_its_source(name):
    model = load_energy_model(name)
    assert model.name == name
    assert len(model.source) > 30
    assert model.checked in ("read", "recalled")
    assert 0 < model.operations.accumulate < model.operations.mac
    assert model is load_energy_model(name)


@pytest.mark.parametrize(
    ("name", "mac", "accumulate"),
    [("sop45", 4.6, 0.9), ("strict", 4.6, 0.9), ("fp16", 1.1 + 0.4, 0.4), ("int8", 0.2 + 0.03, 0.03)],
)
def test_operations_are_a_multiplication_and_an_addition(name, mac, accumulate):
    operations = load_energy_model(name).operations
    assert (operations.mac, operations.accumulate) == (pytest.approx(mac), accumulate)


def test_the_memory_of_spikingjelly_is_that_of_its_source():
    memory = load_energy_model("spikingjelly").memory
    assert memory.weights.pj_per_byte == memory.membrane.pj_per_byte == 8 * 3.12
    assert memory.weights.pj == 4 * 24.96


def test_figures_that_nobody_has_looked_up_again_are_marked():
    assert load_energy_model("loihi").checked == "recalled"
    assert load_energy_model("memory").checked == "recalled"


VALID = {
    "title": "mine",
    "source": "measured on my board",
    "checked": "measured",
    "operations": {"mac": 3.0, "accumulate": 1},
}
TRAFFIC = {"bytes": 4, "pj_per_byte": 1.0}
MEMORY = {
    **dict.fromkeys(("weights", "spikes", "membrane", "activations"), TRAFFIC),
    "on_chip_bytes": 0,
    "off_chip_pj_per_byte": 5,
}


def test_a_model_of_few_keys_has_the_default_rules():
    model = parse_energy_model("mine", VALID, "mine.toml")
    assert (model.operations.neuron, model.operations.spike, model.memory) == (0.0, 0.0, None)
    assert (model.counting.integers, model.counting.fan_out, model.counting.analog) == ("value", "true", "once")
    assert model.counting.layers == ("convolution", "linear", "product", "analog")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"operations": {"mac": 3.0}}, r"mine.toml: \[operations\] missing keys \['accumulate'\]"),
        ({"operations": {"mac": -1, "accumulate": 1}}, "operations.mac must be a number, 0 or more, got -1"),
        ({"operations": {"mac": "3", "accumulate": 1}}, "operations.mac must be a number, 0 or more, got '3'"),
        ({"operations": {"mac": True, "accumulate": 1}}, "operations.mac must be a number, 0 or more, got True"),
        ({"operations": {"mac": float("inf"), "accumulate": 1}}, "operations.mac must be a number, .*got inf"),
        ({"operations": {"mac": float("nan"), "accumulate": 1}}, "operations.mac must be a number, .*got nan"),
        (
            {"operations": {"mac": 3, "accumulate": 1, "add": 1}},
            r"\[operations\] unknown keys \['add'\]; known ones are \['accumulate', 'mac', 'neuron', 'spike'\]",
        ),
        ({"operations": {"mac": 10**400, "accumulate": 1}}, "operations.mac must be a number that is not beyond all"),
        ({"operations": 3}, "operations must be a table, got 3"),
        ({"colour": "red"}, r"mine.toml: unknown keys \['colour'\]"),
        ({"title": " "}, "title must be a text, got ' '"),
        ({"checked": "yes"}, r"checked must be one of \['read', 'measured', 'recalled'\], got 'yes'"),
        ({"counting": {"integers": "mean"}}, r"counting.integers must be one of .*'nonzero', 'mac'\], got 'mean'"),
        ({"counting": {"layers": ["pooling"]}}, r"counting.layers must be a list of \['convolution', .*'pooling'"),
        ({"counting": {"layers": []}}, "counting.layers must be a list"),
        ({"counting": {"fan_out": "average"}}, "an average fan_out is of events, so integers must be nonzero or mac"),
        ({"memory": {**MEMORY, "dense_reuse": 0.5}}, "memory.dense_reuse must be a number, 1 or more, got 0.5"),
        ({"memory": {**MEMORY, "weights": {"bytes": 4}}}, r"\[memory.weights\] missing keys \['pj_per_byte'\]"),
        (
            {"memory": {"weights": TRAFFIC}},
            r"\[memory\] missing keys \['spikes', 'membrane', 'activations', 'on_chip",
        ),
    ],
    ids=lambda value: str(value)[:45],
)
def test_a_wrong_model_is_refused_with_rule_and_fact(change, text):
    with pytest.raises(InputError, match=text):
        parse_energy_model("mine", {**VALID, **change}, "mine.toml")


@pytest.mark.parametrize("key", VALID)
def test_a_model_without_a_source_or_figures_is_refused(key):
    with pytest.raises(InputError, match=rf"missing keys \['{key}'\]"):
        parse_energy_model("mine", {k: v for k, v in VALID.items() if k != key}, "mine.toml")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"title = ", "must be a TOML file"),
        (b"\xff", "must be a TOML file"),
        (b"title = " + b"[" * 9999, "must be a TOML file"),
        (None, r"no energy model at .*broken.toml; named ones are \['sop45'"),
    ],
    ids=["no TOML", "no UTF-8", "too deep", "no file"],
)
def test_a_file_that_cannot_be_read_is_refused(content, text, tmp_path):
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=text):
        load_energy_model(str(path))


def test_a_file_must_not_hide_a_shipped_model(tmp_path):
    path = tmp_path / "sop45.toml"
    path.write_bytes((FOLDER / "sop45.toml").read_bytes())
    with pytest.raises(InputError, match=r"sop45 is a model that comes with Spikefront; give .* another name"):
        load_energy_model(str(path))


def test_a_file_that_was_edited_is_read_anew(tmp_path):
    path = tmp_path / "board.toml"
    text = 'title = "t"\nsource = "s"\nchecked = "measured"\n[operations]\nmac = 2\naccumulate = 1\n'
    path.write_text(text, encoding="utf-8")
    assert load_energy_model(str(path)).operations.mac == 2
    path.write_text(text.replace("mac = 2", "mac = 3"), encoding="utf-8")
    assert load_energy_model(str(path)).operations.mac == 3
