"""Options of ``nas search`` that change how it searches, and how they are refused."""

import pytest
from test_cli_refusals import refused
from test_table_runs import write_run

import nas
from nas.options import parse_bounds
from spaces import InputError


def test_options_change_how_a_recipe_is_searched(command, tmp_path):
    recipe = write_run(
        tmp_path, ("population = 6", "constraints = { max_energy_mj = 0.2, min_acc = 0.1 }\npopulation = 6")
    )
    words = ["--algorithm", "ga", "--fitness", "acc", "--evaluations", 12, "--seconds", 600, "--stall", 100]
    bounds = ["--constraint", "max_energy_mj=0.1", "--constraint", "max_acc=0.99"]
    code, _, _ = command("search", recipe, "--out", tmp_path / "run", *words, *bounds)
    assert code == 0
    search = nas.Run(tmp_path / "run").config.search
    assert (search.algorithm, search.fitness, search.evaluations) == ("ga", "acc", 12)
    assert (search.seconds, search.stall) == (600, 100)
    assert search.constraints == {"max_energy_mj": 0.1, "min_acc": 0.1, "max_acc": 0.99}


def test_bounds_are_read_from_their_last_sign():
    assert parse_bounds(["max_energy_mj:int8=5e-3", "min_a=b=-1"]) == {"max_energy_mj:int8": 5e-3, "min_a=b": -1.0}
    assert parse_bounds([]) == {}


@pytest.mark.parametrize("text", ["max_acc", "max_acc=", "=1", "max_acc=high", "max_acc=nan", "max_acc=inf", ""])
def test_bounds_without_name_or_number_are_refused(text):
    with pytest.raises(InputError, match=r"--constraint must be NAME=VALUE, as in max_parameters=1e6, got '"):
        parse_bounds([text])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--algorithm", "moead"], "search.algorithm must be one of"),
        (["--constraint", "max_acc=1", "--constraint", "max_acc=2"], "must set each bound once, got max_acc twice"),
        (["--constraint", "acc=1"], "search.constraints must be max_ or min_ with one of the metrics"),
        (["--constraint", "max_acc=much"], "--constraint must be NAME=VALUE"),
        (["--algorithm", "ga", "--fitness", "top1"], "search.fitness must be among the metrics ['acc', 'energy_mj']"),
        (["--fitness", "acc"], "search.fitness is for ['ga', 'qpso'], got 'acc' with ['nsga2']"),
        (["--warm-start", ""], "should have at least 1 character, got ''"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options_of_a_search_are_refused(words, text, command, tmp_path):
    assert text in refused(command("search", write_run(tmp_path), "--out", tmp_path / "run", *words))
    assert not (tmp_path / "run").exists()
