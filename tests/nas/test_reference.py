"""The network that a space names to compare with: scored, shown, picked and taken away."""

import json

import pytest
from fakes import SPACE, write_recipe

import nas
from nas.figures import BY_HAND, LARGEST, front_figure
from nas.report import REPORT
from spaces import InputError, load_space
from supernet.spikformer import Spikformer

GENES = {"embed_dim": 8, "timesteps": 2, "depth": 2, "mlp_ratio": 1.0, "num_heads": 2, "v_threshold": 1.0, "tau": 2.0}
NAMED = SPACE + "\n[reference]\n" + "".join(f"{name} = {value}\n" for name, value in GENES.items())


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A run of a space that names a network; tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SPIKEFRONT_DATA", raising=False)
        folder = tmp_path_factory.mktemp("compared")
        return nas.search(write_recipe(folder, space=NAMED), folder / "run")


def test_it_is_scored_on_both_splits_beside_the_largest_and_is_no_part_of_the_budget(compared, finished):
    scored, tested = compared.evaluations("reference"), compared.evaluations("test")
    assert compared.by_hand.genes["num_heads_1"] == 2
    assert scored["key"].tolist() == [compared.space.largest().key, compared.by_hand.key]
    assert set(tested["key"]) == {*compared.front()["key"], compared.by_hand.key}
    for study in ("search", "random"):
        columns = ["key", "accuracy", "energy_mj"]
        ours, others = compared.evaluations(study)[columns], finished.evaluations(study)[columns]
        assert ours.equals(others), "a reference changes what a search finds"


def test_a_run_without_one_has_none_and_its_name_names_nothing(finished):
    assert finished.by_hand is None
    assert len(finished.evaluations("reference")) == 1
    with pytest.raises(InputError, match=r"a space names its reference, but that of .*, tiny, names none"):
        finished.pick("reference")


def test_the_report_draws_it_and_says_what_the_front_has_beside_it(compared):
    search, random, front = compared.evaluations(), compared.evaluations("random"), compared.front()
    figure = front_figure(compared, search, random, front)
    traces = {trace.name: trace for trace in figure.data}
    row = compared.evaluations("reference").iloc[1]
    assert (traces[BY_HAND].x, traces[BY_HAND].y) == ((row["energy_mj"],), (row["accuracy"],))
    assert traces[BY_HAND].customdata == (compared.by_hand.key,)
    assert traces[LARGEST].customdata == (compared.space.largest().key,)
    text = (compared.folder / REPORT).read_text(encoding="utf-8")
    test = compared.evaluations("test").set_index("key").loc[compared.by_hand.key, "accuracy"]
    assert f"The hand-made reference of the space has accuracy {row['accuracy']:.4f} ({test:.4f} on the test" in text
    (data,) = [part for part in text.split("<script") if '"folder"' in part]
    points = json.loads(data[data.index(">") + 1 : data.index("</script>")])["points"]
    assert compared.by_hand.key in points


def test_it_can_be_picked_next_to_the_front_and_exported_like_what_a_rule_picks(compared, command, tmp_path):
    picked = compared.pick("reference")
    test = compared.evaluations("test").set_index("key").loc[picked.key]
    assert picked.key == compared.by_hand.key
    assert picked.metrics["test_accuracy"] == test["accuracy"]
    for select, key in (("reference", picked.key), ("accuracy>=0,knee", compared.pick("accuracy>=0,knee").key)):
        out = tmp_path / key
        code, _, err = command("export", compared.folder, select, out)
        assert code == 0, err
        assert Spikformer.from_pretrained(out).architecture.key == key


def test_a_run_goes_on_with_another_reference_and_with_none(compared, tmp_path):
    other = NAMED.replace("timesteps = 2\ndepth = 2", "timesteps = 1\ndepth = 2")
    assert other != NAMED
    run = nas.search(write_recipe(tmp_path, space=other), compared.folder)
    assert run.by_hand.genes["timesteps"] == 1
    assert len(run.evaluations("reference")) == 3
    assert nas.search(write_recipe(tmp_path, space=SPACE), compared.folder).by_hand is None
    nas.search(write_recipe(tmp_path, space=NAMED), compared.folder)


class Fastidious:
    """Refuses the network that the space names."""

    metrics = {"spread": "max"}  # noqa: RUF012  # as a reader would write it

    def __call__(self, candidate):
        if candidate.architecture.embed_dim == 8 and candidate.architecture.timesteps == 2:
            raise RuntimeError("not this one")
        return {"spread": 1.0}


def test_one_whose_scoring_fails_is_left_out_and_said_to_have_failed(tmp_path):
    recipe = write_recipe(tmp_path, space=NAMED)
    changes = {"run": {"metrics": ["accuracy", "energy_mj", "spikes", "test_reference:Fastidious"]}}
    run = nas.search(recipe, tmp_path / "run", **changes)
    (scored,) = run.evaluations("reference").loc[lambda rows: rows["key"] == run.by_hand.key].itertuples()
    assert scored.state == "failed"
    before = run.evaluations("test")
    run = nas.search(recipe, tmp_path / "run", **changes)
    assert run.evaluations("test").equals(before)
    assert run.by_hand.key not in set(before["key"])
    assert "hand-made reference of the space" not in (run.folder / REPORT).read_text(encoding="utf-8")
    with pytest.raises(InputError, match=f"but the reference {run.by_hand.key} is not: RuntimeError: not this one"):
        run.pick("reference")


def test_one_that_breaks_constraints_is_said_to(tmp_path, compared):
    scored = compared.evaluations("reference").set_index("key").loc[compared.by_hand.key, "spikes"]
    bound = {"constraints": {"max_spikes": scored / 2}}
    run = nas.search(write_recipe(tmp_path, space=NAMED), tmp_path / "run", search=bound)
    with pytest.raises(InputError, match=r"the reference \w+ is not: it does not keep max_spikes"):
        run.pick("reference")


def test_a_recorded_reference_that_the_space_does_not_have_is_refused(copied):
    values = json.loads((copied / "run.json").read_text())
    values["reference"] = load_space("digits").reference.to_dict()
    (copied / "run.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"run\.json: embed_dim must be one of \[8, 16\], got 32"):
        nas.Run(copied)
