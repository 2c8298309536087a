"""Comparisons: tables in parallel, supernets with every architecture scored once, refusals, and what is written."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import Listener
from pymoo.core.population import Population
from test_cli_refusals import refused
from test_table_runs import results, write_run

import nas
from nas.algorithms import RandomSearch, build_algorithm
from nas.backend import open_storage
from nas.compare_report import comparison_figure
from nas.comparing import STUDY, search_seeds
from nas.comparison import Comparison, Level
from nas.contest import Trace
from nas.results import hypervolume
from nas.storage import read_trials
from spaces import InputError


@pytest.fixture(scope="module")
def table_recipe(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("compared"))


@pytest.fixture(scope="module")
def compared(table_recipe):
    """Two algorithms with three seeds on a table; tests only read it."""
    return nas.compare(table_recipe, ["nsga2", "random"], 3, workers=1)


class OneForEver(RandomSearch):
    """Proposes the same architecture again and again."""

    def _infill(self):
        first = next(iter(self.problem.space))
        return Population.new(X=np.array([self.problem.space.encode(first)] * self.pop_size))


def one_for_ever(problem, population, seed, evaluations):
    algorithm = OneForEver(population)
    algorithm.setup(problem, seed=seed)
    return algorithm


def nsga2(problem, population, seed, evaluations):
    return build_algorithm("nsga2", problem, population, seed, evaluations)


# Tables


def test_a_comparison_has_a_curve_for_each_algorithm_and_seed(compared):
    frame = compared.curves
    assert frame.columns.tolist() == ["algorithm", "seed", "evaluations", "hypervolume"]
    assert len(frame) == 2 * 3 * 24
    for _, curve in frame.groupby(["algorithm", "seed"]):
        assert curve["evaluations"].tolist() == list(range(1, 25))
        assert curve["hypervolume"].is_monotonic_increasing
        assert 0 < curve["hypervolume"].iloc[-1] <= 1
    assert compared.summary["algorithm"].tolist() == ["nsga2", "random"]
    assert compared.summary["distinct"].tolist() == [24, 24]


def test_parallel_processes_find_what_one_finds(table_recipe, compared):
    parallel = nas.compare(table_recipe, ["nsga2", "random"], 3, workers=2)
    pd.testing.assert_frame_equal(parallel.curves, compared.curves)
    pd.testing.assert_frame_equal(parallel.summary, compared.summary)
    assert [trace.keys for trace in parallel.traces] == [trace.keys for trace in compared.traces]


def test_the_first_seed_is_the_search_of_the_recipe_itself(table_recipe, compared, tmp_path):
    run = nas.search(table_recipe, tmp_path / "run")
    assert compared.runs("nsga2")[0].keys == tuple(run.evaluations()["key"])
    assert len(set(search_seeds(3, 50))) == 50
    assert search_seeds(3, 5)[:2] == search_seeds(3, 2) != search_seeds(4, 2)


def test_searches_that_exhaust_a_table_end_early_with_all_of_it(table_recipe):
    every = nas.compare(table_recipe, ["random", "nsga2"], 2, evaluations=50, workers=1)
    assert [len(trace.keys) for trace in every.traces] == [30] * 4
    assert all(curves.shape == (2, 50) for curves in every.hypervolumes.values())
    assert np.concatenate([curves[:, 29:] for curves in every.hypervolumes.values()]) == pytest.approx(1.0)
    assert every.summary["failed"].tolist() == [5, 5]
    assert every.summary["p"].tolist()[1] == 1.0


def test_shares_are_of_the_hypervolume_of_the_whole_table(compared):
    sound = results().dropna()[["acc", "energy_mj"]].to_numpy()
    reference = {"acc": sound[:, 0].min(), "energy_mj": sound[:, 1].max()}
    whole = hypervolume(sound, compared.objectives, reference)
    assert (compared.reference, compared.whole) == (reference, pytest.approx(whole))
    trace = compared.runs("random")[1]
    points = trace.points[np.isfinite(trace.points).all(axis=1)]
    share = hypervolume(points, compared.objectives, reference) / whole
    assert compared.hypervolumes["random"][1, -1] == pytest.approx(share)


def test_infeasible_rows_add_nothing(tmp_path):
    bounded = write_run(tmp_path, ("evaluations = 24", "evaluations = 40\nconstraints = { max_energy_mj = 0.1 }"))
    found = nas.compare(bounded, ["random"], 1, workers=1)
    trace = found.runs("random")[0]
    sound = results().dropna()
    allowed = sound[sound["energy_mj"] <= 0.1]
    assert np.isfinite(trace.points).all(axis=1).sum() == len(allowed) < len(sound)
    assert found.hypervolumes["random"][0, -1] == pytest.approx(1.0)


def test_two_names_of_one_algorithm_do_not_differ(table_recipe):
    twins = nas.compare(table_recipe, {"one": nsga2, "other": nsga2}, 4, workers=1)
    np.testing.assert_array_equal(*twins.hypervolumes.values())
    row = twins.summary.set_index("algorithm").loc["other"]
    assert (row["p"], row["a12"]) == (1.0, 0.5)


def test_an_architecture_that_is_proposed_again_counts_and_adds_nothing(table_recipe):
    found = nas.compare(table_recipe, {"stuck": one_for_ever, "nsga2": nsga2}, 2, workers=1)
    stuck = found.runs("stuck")[0]
    assert (len(stuck.keys), len(set(stuck.keys))) == (24, 1)
    assert found.summary.set_index("algorithm")["distinct"].to_dict() == {"stuck": 1, "nsga2": 24}
    assert np.ptp(found.hypervolumes["stuck"]) == 0


# Figures of a comparison


def traced(algorithm, index, values):
    points = np.array(values, dtype=float).reshape(-1, 1)
    seconds = {"search": (0.4, 0.2), "ask": (0.1, 0.05), "tell": (0.04, 0.02)}
    return Trace(algorithm, index, points, tuple(map(str, values)), seconds)


@pytest.fixture
def by_hand():
    """Four searches with two algorithms for one objective, with known curves."""
    rows = {"base": [[1, 2, 3], [3, 1, 5], [2, 2, 4], [0, 0, 2]], "new": [[5, 5, 9], [3, 3, 3], [1, 4, 4], [2, 2, 2]]}
    traces = [traced(name, index, values) for name, runs in rows.items() for index, values in enumerate(runs)]
    return Comparison(tuple(traces), {"score": "max"}, {"score": 0.0}, 2.0, 3, Level("base", 3), {})


def test_the_summary_by_hand(by_hand):
    assert by_hand.hypervolumes["base"].tolist() == [[0.5, 1, 1.5], [1.5, 1.5, 2.5], [1, 1, 2], [0, 0, 1]]
    assert by_hand.level_value == 1.75
    base, new = by_hand.summary.to_dict(orient="records")
    # finals 1, 1.5, 2, 2.5 against 4.5, 1.5, 2, 1: 4 + 1.5 + 2.5 + 0.5 of 16 pairs are won
    assert (base["hypervolume"], new["hypervolume"]) == (1.75, 1.75)
    assert (base["reached"], new["reached"]) == (2, 2)
    assert np.isnan(base["to_level"])
    assert np.isnan(base["a12"])
    assert new["a12"] == pytest.approx(8.5 / 16)
    assert (base["distinct"], new["distinct"]) == (2.5, 1.5)


def test_evaluations_to_a_level_that_most_searches_reach(by_hand):
    easy = Comparison(by_hand.traces, by_hand.objectives, by_hand.reference, 2.0, 3, Level("base", 1), {})
    assert easy.level_value == 0.75
    # base needs 2, 1, 1, 3 evaluations, new 1, 1, 2, 1
    assert easy.summary["to_level"].tolist() == [1.5, 1.0]
    assert easy.summary["reached"].tolist() == [4, 4]


def test_timing_is_per_evaluation_and_by_phase(by_hand):
    rows = by_hand.timing.set_index(["algorithm", "phase"])
    assert rows.loc[("new", "ask")].tolist() == pytest.approx([100 / 3, 50 / 3])
    assert rows.loc[("base", "rest")].tolist() == pytest.approx([260 / 3, 130 / 3])


def test_one_objective_has_no_attainment_surface_and_a_picture(by_hand):
    assert by_hand.attainment.empty
    assert [trace.name for trace in comparison_figure(by_hand).data if trace.showlegend is not False] == [
        "base",
        "new",
    ]


def test_attainment_surfaces_lie_between_the_runs_and_the_true_front(compared):
    frame = compared.attainment
    assert set(frame["surface"]) == {"best", "median", "worst"}
    runs = np.vstack([trace.points for trace in compared.runs("nsga2")])
    best = frame[(frame["algorithm"] == "nsga2") & (frame["surface"] == "best")]
    for accuracy, energy in best[["acc", "energy_mj"]].to_numpy():
        assert ((runs[:, 0] == accuracy) & (runs[:, 1] == energy)).any()


# Supernets


class Interrupting(Listener):
    """A reporter that stops the process after some results."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def evaluated(self, evaluation):
        super().evaluated(evaluation)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def supernet_recipe(folder):
    return nas.Run(folder).config


def test_a_supernet_scores_each_architecture_once_and_goes_on_where_it_stopped(trained, tmp_path):
    config, other = supernet_recipe(trained), Path(shutil.copytree(trained, tmp_path / "other"))
    arguments = (config, ["nsga2", "random"], 2)
    with pytest.raises(KeyboardInterrupt):
        nas.compare(*arguments, evaluations=8, out=trained, reporter=Interrupting(after=19))
    stopped = [trial for trial in read_trials(open_storage(trained), STUDY) if trial.state.is_finished()]
    resumed = nas.compare(*arguments, evaluations=8, out=trained)
    whole = nas.compare(*arguments, evaluations=8, out=other)
    pd.testing.assert_frame_equal(resumed.curves, whole.curves)
    assert resumed.whole == 1.0
    trials = read_trials(open_storage(trained), STUDY)
    keys = [trial.user_attrs["key"] for trial in trials]
    assert len(keys) == len(set(keys))
    proposed = {key for trace in whole.traces for key in trace.keys}
    largest = nas.Run(trained).supernet_space.largest().key
    assert set(keys) == proposed | {largest}
    finished = {trial.user_attrs["key"]: trial.datetime_complete for trial in trials}
    assert 9 < len(stopped) < len(trials)
    assert all(finished[trial.user_attrs["key"]] == trial.datetime_complete for trial in stopped)


def test_a_search_goes_on_in_the_folder_of_a_comparison(trained):
    config = supernet_recipe(trained)
    found = nas.compare(config, ["nsga2"], 1, evaluations=6, out=trained)
    run = nas.search(config, trained)
    assert tuple(run.evaluations()["key"])[:6] == found.traces[0].keys


# The command


def test_the_command_prints_a_table_and_writes_four_files(table_recipe, command, tmp_path):
    code, out, err = command(
        "compare", table_recipe, "--algorithms", "nsga2, random", "--seeds", 2, "--workers", 1, "--evaluations", 12,
        "--level", "random:6", "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0
    assert "nsga2" in out
    assert "the median of random after 6 evaluations" in out
    assert "4 of 4 searches are done" in err
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"curves.csv", "summary.csv", "compare.html", "compare.json"}
    assert len(pd.read_csv(tmp_path / "out" / "curves.csv")) == 2 * 2 * 12
    values = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert values["level"] | {"hypervolume": None} == {"algorithm": "random", "evaluations": 6, "hypervolume": None}
    assert values["seeds"] == search_seeds(3, 2)
    assert values["command"].startswith("nas compare ")
    assert values["facts"]["versions"]["pymoo"]
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "plotly.js v" in page
    assert '<script src="http' not in page
    assert page.count('div id="comparison"') == 1


@pytest.mark.parametrize("output", ["json", "csv"])
def test_the_summary_in_other_formats_is_that_of_the_file(output, table_recipe, command, tmp_path):
    code, out, _ = command(
        "compare", table_recipe, "--seeds", 2, "--workers", 1, "--evaluations", 9, "--out", tmp_path, "-f", output
    )
    assert code == 0
    printed = pd.read_json(io.StringIO(out)) if output == "json" else pd.read_csv(io.StringIO(out))
    written = pd.read_csv(tmp_path / "summary.csv")
    pd.testing.assert_frame_equal(printed, written, check_dtype=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--algorithms", "nsga2,magic"], "search.algorithm must be one of"),
        (["--algorithms", "nsga2@0"], "NAME or NAME@EXPAND with EXPAND from 1"),
        (["--algorithms", "nsga2,random,nsga2"], "algorithms must differ"),
        (["--algorithms", ""], "search.algorithm must be one of"),
        (["--seeds", "0"], "seeds must be 1 or more, got 0"),
        (["--evaluations", "-1"], "evaluations must be 1 or more, got -1"),
        (["--workers", "0"], "workers must be 1 or more, got 0"),
        (["--level", "spea2:5"], "a level ALGORITHM:EVALUATIONS must have one of ['nsga2', 'random'], got 'spea2:5'"),
        (["--level", "random"], "a level ALGORITHM:EVALUATIONS must have one of"),
        (["--level", "random:25"], "the evaluations of a level must be from 1 to 24, got 'random:25'"),
        (["--level", "random:x"], "the evaluations of a level must be from 1 to 24"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_in_one_line(options, text, table_recipe, command, tmp_path):
    err = refused(command("compare", table_recipe, "--out", tmp_path / "out", *options))
    assert text in err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused(table_recipe, command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    options = ("--seeds", 1, "--workers", 1, "--evaluations", 6, "--algorithms", "random")
    result = command("compare", table_recipe, "--out", tmp_path / "file", *options)
    assert (result[0], result[1]) == (2, "")
    assert "error: --out must be a folder that can be written" in result[2]


def test_no_algorithm_is_refused(table_recipe):
    with pytest.raises(InputError, match="one or more algorithms must be given"):
        nas.compare(table_recipe, [])
