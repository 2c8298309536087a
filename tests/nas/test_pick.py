"""``nas pick``: which architecture, what its neighbours would give and take, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from test_cli_refusals import refused
from test_table_runs import results, write_run

import nas
from nas.decision import knee, shares
from nas.results import non_dominated
from spaces import InputError

QUICK = ("evaluations = 24", "evaluations = 500\nbaseline = false")
METRICS = 'metrics = { acc = "max", energy_mj = "min" }'


def three(table):
    """Return a table with a third metric, on which nothing else depends."""
    return table.assign(latency_ms=np.random.default_rng(3).permutation(len(table)) + 1.0)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A run that has seen its whole table; tests only read it."""
    folder = tmp_path_factory.mktemp("pick")
    more = METRICS.replace(" }", ', latency_ms = "min" }')
    return nas.search(write_run(folder, QUICK, (METRICS, more), table=three(results())), folder / "run")


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """The same with three objectives."""
    folder = tmp_path_factory.mktemp("pick3")
    more = METRICS.replace(" }", ', latency_ms = "min" }')
    objectives = ('objectives = ["acc", "energy_mj"]', 'objectives = ["acc", "energy_mj", "latency_ms"]')
    return nas.search(write_run(folder, QUICK, (METRICS, more), objectives, table=three(results())), folder / "run")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A run whose front has one member."""
    folder = tmp_path_factory.mktemp("pick1")
    table = results()
    table["acc"] = 1 - table["energy_mj"]
    table.loc[table["energy_mj"] == table["energy_mj"].min(), "acc"] = [0.999, 0.998, 0.997][:3]
    return nas.search(write_run(folder, QUICK, table=table), folder / "run")


@pytest.mark.parametrize("select", ["knee", "weights:0.5,0.5", "asf:1,1"])
def test_what_is_picked_is_on_the_front_with_the_neighbours_to_both_sides(select, known):
    picked, front = known.pick(select), known.front()
    place = front["key"].tolist().index(picked.key)
    sides = {front["key"].iloc[i] for i in (place - 1, place + 1) if 0 <= i < len(front)}
    assert picked.on_front
    assert {each.key for each in picked.neighbours} == sides
    for each in picked.neighbours:
        row = front.set_index("key").loc[each.key]
        assert each.metrics == {"acc": row["acc"], "energy_mj": row["energy_mj"]}
        acc, energy = row["acc"] - picked.metrics["acc"], row["energy_mj"] - picked.metrics["energy_mj"]
        assert acc * energy > 0
        better, worse = (each.gains, each.losses) if acc > 0 else (each.losses, each.gains)
        assert better == {"acc": pytest.approx(abs(acc))}
        assert worse == {"energy_mj": pytest.approx(abs(energy))}
    assert list(picked.metrics) == ["acc", "energy_mj", "latency_ms", "test_acc", "test_energy_mj"]


def test_weights_run_from_one_end_of_the_front_to_the_other(known):
    front = known.front()
    assert known.pick("weights:1,0").key == front["key"].iloc[0]
    assert known.pick("weights:0,2").key == front["key"].iloc[-1]
    assert known.pick("asf:1,0").key == front["key"].iloc[0]


def test_bounds_take_the_best_of_all_feasible_evaluations(known):
    frame = known.evaluations()
    frame = frame[frame["feasible"]]
    picked = known.pick("acc >= 0.9, min:energy_mj")
    within = frame[frame["acc"] >= 0.9]
    assert picked.metrics["energy_mj"] == within["energy_mj"].min()
    assert picked.metrics["acc"] == within.loc[within["energy_mj"] == within["energy_mj"].min(), "acc"].max()
    picked = known.pick("energy_mj<=0.1,latency_ms<=20,max:acc")
    within = frame[(frame["energy_mj"] <= 0.1) & (frame["latency_ms"] <= 20)]
    assert picked.metrics["acc"] == within["acc"].max()
    kept = f"{len(within)} of {len(frame)} feasible evaluations"
    assert picked.reason == f"the most acc of {kept} with energy_mj<=0.1 and latency_ms<=20"
    assert known.pick("min:latency_ms").metrics["latency_ms"] == frame["latency_ms"].min()


def test_what_is_not_on_the_front_is_shown_next_to_what_beats_it(known):
    frame = known.evaluations()
    row = frame[frame["feasible"] & ~frame["is_pareto"]].iloc[0]
    picked = known.pick(row["key"])
    assert not picked.on_front
    assert picked.key == row["key"]
    assert picked.reason == "as asked for"
    assert all(each.gains for each in picked.neighbours)
    assert {each.key for each in picked.neighbours} <= set(known.front()["key"])
    assert "test_acc" not in picked.metrics


def test_three_objectives_have_up_to_three_neighbours_each_better_in_one(deep):
    front = deep.front()
    assert len(front) > 5
    for select in ("knee", "weights:1,1,1", "asf:0.2,0.3,0.5", front["key"].iloc[2]):
        picked = deep.pick(select)
        assert picked.on_front
        assert 1 <= len(picked.neighbours) <= 3
        for each in picked.neighbours:
            assert each.gains
            assert each.losses
            assert list(each.metrics) == ["acc", "energy_mj", "latency_ms"]
    best = front["latency_ms"].idxmin()
    assert deep.pick("asf:0,0,1").metrics["latency_ms"] == front["latency_ms"][best]


@pytest.mark.parametrize("select", ["knee", "weights:1,1", "asf:1,1", "min:energy_mj"])
def test_a_front_of_one_has_no_neighbours(select, single):
    assert len(single.front()) == 1
    picked = single.pick(select)
    assert (picked.key, picked.neighbours) == (single.front()["key"][0], ())
    assert picked.frame()["role"].tolist() == ["picked"]
    assert picked.describe()[-1] == "it has no neighbours on the front"


def test_a_bound_out_of_reach_is_refused_with_the_nearest_offer_which_is_then_taken(known):
    with pytest.raises(InputError) as caught:
        known.pick("acc>=1.5,energy_mj<=0.3,min:energy_mj")
    text = str(caught.value)
    assert text.startswith("none of ")
    assert "has acc>=1.5 and energy_mj<=0.3; the nearest is " in text
    offer = text.split("which ")[1].removesuffix(" would find")
    picked = known.pick(offer + ",min:energy_mj")
    assert picked.key in text
    assert picked.metrics["acc"] == known.evaluations().query("energy_mj <= 0.3")["acc"].max()


@pytest.mark.parametrize(
    ("select", "text"),
    [
        ("weights:1", "weights must be 2 numbers from 0"),
        ("weights:1,2,3", r"one for each of \['acc', 'energy_mj'\], got '1,2,3'"),
        ("weights:0,0", "not all of them 0"),
        ("weights:-1,2", "numbers from 0"),
        ("weights:nan,1", "numbers from 0"),
        ("asf:a,b", "weights must be"),
        ("accuracy>=0.9,min:energy_mj", r"must use the metrics \['acc', 'energy_mj', 'latency_ms'\], got 'accuracy'"),
        ("acc>=0.9", "bounds go with one goal, as in .*, got 0 goals"),
        ("min:acc,max:acc", "got 2 goals"),
        ("acc>=high,min:acc", "a bound must be a finite number, as in accuracy>=0.9, got 'acc>=high'"),
        ("acc>=inf,min:acc", "finite number"),
        ("acc=0.9,min:acc", "'acc=0.9' is neither bound nor goal"),
        ("best:acc", "is neither bound nor goal"),
        ("zzz", "a key must name one evaluated architecture, but 'zzz' names 0"),
        ("", "got ''"),
    ],
)
def test_what_is_no_rule_is_refused(select, text, known):
    with pytest.raises(InputError, match=text):
        known.pick(select)


def test_a_failed_evaluation_is_not_picked(known):
    frame = known.evaluations()
    key = frame.loc[frame["state"] == "failed", "key"].iloc[0]
    with pytest.raises(InputError, match=f"of a feasible evaluation of the search, got '{key}'"):
        known.pick(key)


def test_without_a_front_there_is_nothing_to_pick(tmp_path):
    recipe = write_run(tmp_path, QUICK, ("[search]", "[search]\nconstraints = { min_acc = 2.0 }"))
    run = nas.search(recipe, tmp_path / "run")
    with pytest.raises(InputError, match=r"a pick is from a front, and .* has none: none of \d+ evaluations keeps"):
        run.pick()


# The command


def test_the_command_shows_the_pick_and_what_neighbours_give_and_take(known, command):
    code, out, err = command("pick", known.folder)
    picked = known.pick()
    assert (code, err) == (0, "")
    assert f"{picked.key} (on the front): leaving it" in out
    for each in picked.neighbours:
        ((gain, by),) = each.gains.items()
        assert f"{each.key} instead: {gain} {by:.4g} (" in out
    assert out.count(" better, ") == len(picked.neighbours)


def test_the_command_speaks_json_and_csv(known, command):
    code, out, _ = command("pick", known.folder, "--select", "acc>=0.9,min:energy_mj", "-f", "json")
    assert code == 0
    picked = known.pick("acc>=0.9,min:energy_mj")
    assert json.loads(out) == json.loads(json.dumps(picked.to_dict()))
    code, out, _ = command("pick", known.folder, "--select", picked.key, "-f", "csv")
    assert code == 0
    header, first, *others = out.splitlines()
    assert header == "role,key,acc,energy_mj,change_acc,change_energy_mj"
    assert first.startswith(f"picked,{picked.key},")
    assert len(others) == len(picked.neighbours)


def test_the_command_refuses_in_a_line(known, command, tmp_path):
    assert "the nearest is" in refused(command("pick", known.folder, "--select", "acc>=7,min:energy_mj"))
    assert "is not a run folder" in refused(command("pick", tmp_path))


def test_changes_lead_from_the_pick_to_its_neighbours(known):
    frame = known.pick().frame()
    picked, others = frame.iloc[0], frame.iloc[1:]
    assert pd.isna(picked["change_acc"])
    for row in others.itertuples():
        assert row.acc == pytest.approx(picked["acc"] + row.change_acc)
        assert row.energy_mj == pytest.approx(picked["energy_mj"] + row.change_energy_mj)
    points = frame[["acc", "energy_mj"]].to_numpy(dtype=float)
    assert non_dominated(points, {"acc": "max", "energy_mj": "min"}).all()


def test_a_knee_within_bounds_is_that_of_the_part_of_the_front_that_keeps_them(known):
    front = known.front()
    bound = float(front["energy_mj"].iloc[2])  # the third dearest
    within = front[front["energy_mj"] <= bound]
    picked = known.pick(f"energy_mj<={bound},knee")
    F = shares(within[["acc", "energy_mj"]].to_numpy(dtype=float), [True, False])
    assert picked.key == within["key"].iloc[knee(F)]
    assert picked.reason.startswith(f"of {len(within)} of {len(front)} members of the front with energy_mj<=")
    assert picked.reason.endswith("gives up most for what it gains")
    assert {each.key for each in picked.neighbours} <= set(front["key"])
    dearest = float(front["energy_mj"].iloc[0])
    assert known.pick(f"energy_mj>={dearest},knee").key == front["key"].iloc[0]
    with pytest.raises(InputError, match=r"none of \d+ members of the front has acc>=2; the nearest is"):
        known.pick("acc>=2,knee")
    with pytest.raises(InputError, match=r"one goal, as in accuracy>=0\.9,min:energy_mj, got 2 goals"):
        known.pick("acc>=0.5,knee,min:energy_mj")
