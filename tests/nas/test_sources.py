"""Runs on supernets of the user's own: kept as data, resumed, bound to what they were scored with, refusals."""

import json
import sys

import pytest
from fakes import lasting
from test_cli_refusals import refused

import nas
from nas.algorithms import ALGORITHMS
from nas.config import load_recipe
from spaces import InputError, ProductSpace, SearchSpace, TableSpace, load_space

MODULE = """
from pathlib import Path
import numpy as np
from spaces import Column, ProductSpace, SearchSpace, TableSpace, gene_columns, load_space

GENES = {"stages": [1, 2, 3], "kernel": [3, 5, 7], "kernel_3": [3, 5, 7], "op": ["a", "b"]}
SPACE = ProductSpace.from_dict({"name": "cells", "genes": GENES, "needs": {"kernel_3": ["stages", 3]}})

class Own:
    metrics = {"accuracy": "max", "latency_ms": "min"}
    space = SPACE
    fingerprint = "first"

    def __init__(self, slow=1.0):
        self.slow = slow

    def prepare(self, folder):
        log = folder / "prepared.txt"
        log.write_text((log.read_text() if log.exists() else "") + "prepared\\n")
        self.ready = True

    def open(self):
        assert self.ready
        return self.answer

    def answer(self, architecture, split):
        number = int(architecture.key, 16) % 97
        if number < 20:
            raise RuntimeError("no kernel")
        if number < 25:
            return {"accuracy": float("nan"), "latency_ms": 1.0}
        if number < 30:
            return {"accuracy": 0.5}
        latency = self.slow * architecture.genes.get("stages", 1)
        return {"accuracy": number / 97 - (split == "test"), "latency_ms": latency}

class Tested(Own):
    tested = True

class Digits(Own):
    space = load_space("digits")

class Listed(Own):
    space = TableSpace("listed", *gene_columns({"width": np.array([1, 2, 3, 5, 8])}))

class Depth:
    metrics = {"stages_cost": "min"}
    static = True

    def __call__(self, candidate):
        return {"stages_cost": candidate.architecture.genes["stages"]}

THREE = 3

def lacking(): return object()
def placed(): own = Own(); own.space = object(); return own
def broken(): own = Own(); own.space = SPACE.__class__("", SPACE.genes, {}); return own
def senseless(): own = Own(); own.metrics = {"accuracy": "up"}; return own
def metricless(): own = Own(); own.metrics = {}; return own
def nameless(): own = Own(); own.fingerprint = 3; return own
def stumbling(): raise RuntimeError("no license")
def shut(): own = Own(); own.open = 3; return own
def colliding(): own = Own(); own.metrics = Own.metrics | {"stages": "min"}; return own
"""

RECIPE = """
name = "mine"
seed = 3
source = "module_of_sources:Own"

[search]
objectives = ["accuracy", "latency_ms"]
population = 6
evaluations = 24
hypervolume_reference = { accuracy = 0.0, latency_ms = 10.0 }

[workers]
pool = "local"
"""


@pytest.fixture
def mine(own_module, tmp_path):
    """Write the module, and the recipe with some texts replaced; return the recipe's path."""

    def mine(*changes):
        own_module("module_of_sources", MODULE)
        text = RECIPE
        for old, new in changes:
            assert text.count(old) == 1, f"{old!r} must stand once in the recipe"
            text = text.replace(old, new)
        (tmp_path / "mine.toml").write_text(text)
        return tmp_path / "mine.toml"

    return mine


def forget():
    """Make the module as if it had never been."""
    del sys.modules["module_of_sources"]
    sys.path[:] = [path for path in sys.path if not path.endswith("/modules")]


def test_a_run_is_kept_as_data_and_read_without_the_module(mine, tmp_path, command):
    run = nas.search(mine(), tmp_path / "run")
    frame = run.evaluations()
    assert (len(frame), frame["key"].nunique()) == (24, 24)
    assert set(frame["state"]) == {"complete", "failed"}
    reasons = " ".join(frame["failure"].dropna())
    assert "RuntimeError: no kernel" in reasons
    assert run.test_columns == []
    assert (frame["kernel_3"].isna() == (frame["stages"] < 3)).all()
    forget()
    (tmp_path / "run" / "report.html").unlink()
    code, _, err = command("report", tmp_path / "run")
    assert (code, err) == (0, "")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Metrics are what <code>module_of_sources:Own</code> gives on the validation split." in page
    assert "module_of_sources:Own, fingerprint first" in page
    assert "module_of_sources" not in sys.modules
    again = nas.Run(tmp_path / "run")
    assert isinstance(again.space, ProductSpace)
    assert again.space.size == 2 * 3 * (2 + 3)
    assert lasting(again.evaluations()).equals(lasting(frame))
    assert again.front()["key"].tolist() == run.front()["key"].tolist()
    code, _, err = command("pick", tmp_path / "run")
    assert (code, err) == (0, "")
    code, _, err = command("status", tmp_path / "run")
    assert (code, err) == (0, "")


def test_a_recipe_written_from_a_run_is_the_recipe(mine, tmp_path):
    from nas.reproducing import caveats, recipe_files

    run = nas.search(
        mine(("[search]", 'options = { "module_of_sources:Own" = { slow = 2.0 } }\n\n[search]')), tmp_path / "run"
    )
    (text,) = recipe_files(run).values()
    (tmp_path / "again.toml").write_text(text)
    assert load_recipe(tmp_path / "again.toml") == run.config
    assert any("module_of_sources:Own" in sentence for sentence in caveats(run))
    assert run.evaluations()["latency_ms"].dropna().isin([2.0, 4.0, 6.0]).all()
    assert run.energy_models == [], "options of a source are none of evaluators"


def test_what_an_interrupted_search_had_is_what_it_goes_on_with(mine, tmp_path):
    whole = nas.search(mine(), tmp_path / "whole")
    nas.search(mine(), tmp_path / "run", search={"evaluations": 10})
    resumed = nas.search(mine(), tmp_path / "run")
    assert lasting(resumed.evaluations()).equals(lasting(whole.evaluations()))
    assert (tmp_path / "run" / "prepared.txt").read_text() == "prepared\n" * 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('fingerprint = "first"', 'fingerprint = "second"', r"answers.fingerprint \('first' there, 'second' here\)"),
        ('"op": ["a", "b"]', '"op": ["a", "b", "c"]', "space.genes.op"),
        ("slow=1.0", "slow=1.0, other=2", None),
    ],
)
def test_a_run_goes_on_only_with_what_it_was_scored_with(old, new, message, mine, own_module, tmp_path):
    nas.search(mine(), tmp_path / "run", search={"evaluations": 8})
    del sys.modules["module_of_sources"]
    assert MODULE.count(old) == 1
    own_module("module_of_sources", MODULE.replace(old, new))
    if message is None:
        nas.search(tmp_path / "mine.toml", tmp_path / "run")
        return
    with pytest.raises(InputError, match=message):
        nas.search(tmp_path / "mine.toml", tmp_path / "run")


def test_a_test_split_is_scored_for_the_front(mine, tmp_path):
    run = nas.search(mine((":Own", ":Tested")), tmp_path / "run")
    front = run.front()
    assert run.test_columns == ["test_accuracy", "test_latency_ms"]
    assert (front["test_accuracy"] - front["accuracy"]).round(9).eq(-1).all()


@pytest.mark.parametrize(("name", "kind"), [("Digits", SearchSpace), ("Listed", TableSpace)])
def test_a_source_may_have_any_space_that_is_data(name, kind, mine, tmp_path, command):
    run = nas.search(mine((":Own", f":{name}")), tmp_path / "run")
    assert type(nas.Run(tmp_path / "run").space) is kind
    assert len(run.evaluations()) == (5 if name == "Listed" else 24)
    by_hand = load_space("digits").reference if kind is SearchSpace else None
    assert run.by_hand == by_hand
    assert run.evaluations("reference")["key"].tolist() == ([by_hand.key] if by_hand else [])
    for words in (
        ["export", tmp_path / "run", run.evaluations()["key"].iloc[0], tmp_path / "out"],
        ["energy", tmp_path / "run", "a"],
    ):
        _, _, err = command(*words)
        assert "has searched the source module_of_sources" in err


def test_static_evaluators_go_with_a_source(mine, tmp_path):
    run = nas.search(
        mine(("source =", 'metrics = ["module_of_sources:Depth"]\nsource =')),
        tmp_path / "run",
        search={"constraints": {"max_stages_cost": 2}},
    )
    assert run.metrics == ["accuracy", "latency_ms", "stages_cost"]
    assert (run.evaluations()["stages"] <= 2).all()
    assert len(run.evaluations()) == 2 * 3 * 2


@pytest.mark.parametrize("algorithm", ["nsga2", "mo-qpso", "random"])
def test_algorithms_and_rerankers_search_any_genes(algorithm, mine, tmp_path):
    assert algorithm in ALGORITHMS
    run = nas.search(mine(), tmp_path / "run", search={"algorithm": algorithm, "evaluations": 30})
    assert set(run.evaluations()["key"]) == {a.key for a in run.space}


def test_a_warm_start_takes_results_of_the_same_fingerprint(mine, own_module, tmp_path):
    nas.search(mine(), tmp_path / "first", search={"evaluations": 10})
    warm = {"warm_start": str(tmp_path / "first"), "evaluations": 4}
    taken = nas.search(mine(), tmp_path / "second", search=warm)
    assert "taken as they are" in taken.warm_start
    del sys.modules["module_of_sources"]
    own_module("module_of_sources", MODULE.replace('"first"', '"second"'))
    scored = nas.search(tmp_path / "mine.toml", tmp_path / "third", search=warm)
    assert "scored anew, as the runs differ in source" in scored.warm_start


def test_algorithms_are_compared_on_a_source(mine, tmp_path):
    found = nas.compare(mine(), ["nsga2", "random"], seeds=2, evaluations=8, out=tmp_path / "run")
    assert found.summary["distinct"].tolist() == [8, 8]


# What is refused


@pytest.mark.parametrize("verb", ["train", "fidelity"])
def test_what_needs_a_supernet_of_spikefronts_is_refused(verb, mine, tmp_path, command):
    folder = nas.search(mine(), tmp_path / "run").folder
    words = ["train", tmp_path / "mine.toml", "--out", folder] if verb == "train" else [verb, folder]
    assert "module_of_sources:Own" in refused(command(*words))
    for ask in (lambda run: run.supernet(), lambda run: run.data, lambda run: run.operations(["a"])):
        with pytest.raises(InputError, match=r"the source module_of_sources:Own, which has no .*supernet"):
            ask(nas.Run(folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Missing", "source 'module_of_sources:Missing' cannot be imported"),
        ("THREE", "a source is called with its options and gives .* but 'module_of_sources:THREE' is 3"),
        ("lacking", "that of 'module_of_sources:lacking' lacks space, metrics, fingerprint, open"),
        ("placed", "the space of a source must be one of .*ProductSpace.* but that of .* is <object"),
        ("broken", "the space of source 'module_of_sources:broken': name must be a non-empty text, got ''"),
        ("senseless", "the metrics of a source are such as .* but those of .* are {'accuracy': 'up'}"),
        ("metricless", "the metrics of a source are such as .* but those of .* are {}"),
        ("nameless", "the fingerprint of a source must be a text, but that of .* is 3"),
        (
            "stumbling",
            r"stumbling' cannot be built: RuntimeError: no license \(module_of_sou.*, line",
        ),
        ("shut", "but open or prepare of 'module_of_sources:shut' cannot be called"),
        ("colliding", "a metric must not be called .* got 'stages'"),
    ],
)
def test_what_is_no_source_is_refused(name, message, mine, tmp_path):
    with pytest.raises(InputError, match=message):
        nas.search(mine((":Own", f":{name}")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[search]", 'space = "digits"\n[search]', r"or \[table\], or source: space cannot go with a source"),
        ("[search]", '[data]\nname = "digits"\n[search]', "data cannot go with a source"),
        ("[search]", "[training]\nepochs = 1\n[search]", "training cannot go with a source"),
        (
            "[search]",
            'metrics = ["spikes"]\n[search]',
            "spikes needs a network, which source 'module_of_sources:Own'",
        ),
        ("[search]", '[options."module_of_sources:Own"]\nfast = 1\n[search]', "cannot be built: .*'fast'"),
        ("[search]", '[options."other:Own"]\nfast = 1\n[search]', "options belong to evaluators in use"),
        (
            '"latency_ms"]',
            '"energy_mj"]',
            r"search.objectives must be among the metrics \['accuracy', 'latency_ms'\]",
        ),
        (
            "hypervolume_reference = { accuracy = 0.0, latency_ms = 10.0 }",
            "",
            "hypervolume_reference must be given with",
        ),
    ],
)
def test_a_recipe_that_makes_no_sense_with_a_source_is_refused(old, new, message, mine, tmp_path):
    with pytest.raises(InputError, match=message):
        nas.search(mine((old, new)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_space_in_a_run_folder_is_refused(mine, tmp_path):
    folder = nas.search(mine(), tmp_path / "run").folder
    values = json.loads((folder / "run.json").read_text())
    values["space"]["genes"]["op"] = "ab"
    (folder / "run.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"run\.json: op must be a list of different"):
        nas.Run(folder)
    values["source"] = {"fingerprint": 3}
    (folder / "run.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"run\.json must be of format"):
        nas.Run(folder)
