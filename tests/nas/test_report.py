"""The report: one page that needs no network, with all numbers, and with nothing in it that could run but plotly."""

import json
import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser

import pandas as pd
import pytest
from chromium import CHROMIUM, browser
from fakes import METRICS, OBJECTIVES, half_failing, write_recipe

import nas
from evaluators import energy_mj, load_energy_model
from nas.backend import open_storage
from nas.evaluation import Evaluation
from nas.figures import front_figure, hypervolume_figure
from nas.folder import RUN, create_folder
from nas.report import REPORT, write_report
from nas.results import hypervolume_curve
from nas.run import REFERENCE
from nas.scoring import metric_senses
from nas.statistics import wilson
from nas.storage import Store
from spaces import SearchSpace

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>&"


class Page(HTMLParser):
    """Tags with their attributes, scripts, visible text, and tables as lists of rows of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.scripts, self.text, self.tables = [], [], [], []
        self.inside = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.text.append(data)
            if self.inside in ("td", "th"):
                self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def page(finished):
    return Page((finished.folder / REPORT).read_text(encoding="utf-8"))


def test_nothing_is_fetched(page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img"), tag
        assert not attributes.get("src"), tag
        assert tag == "a" or not attributes.get("href"), tag
        assert attributes.get("http-equiv") in (None, "Content-Security-Policy")


def test_the_policy_of_the_page_lets_a_browser_fetch_nothing(page):
    (policy,) = [attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv")]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules == {"script-src": "'unsafe-inline'", "style-src": "'unsafe-inline'", "img-src": "data: blob:"}


def test_styles_fetch_nothing(finished):
    html = (finished.folder / REPORT).read_text(encoding="utf-8")
    for style in re.findall(r"<style>(.*?)</style>", html, re.DOTALL):
        assert "url(" not in style
        assert "@import" not in style


def test_plotly_is_embedded_once_and_draws_five_figures(page):
    libraries = [script for script in page.scripts if len(script) > 1_000_000]
    assert len(libraries) == 1
    calls = [script for script in page.scripts if "Plotly.newPlot(" in script and len(script) < 1_000_000]
    assert len(calls) == 5
    ids = {attributes.get("id") for tag, attributes in page.tags if tag == "div"}
    assert ids >= {"front", "genes", "hypervolume", "idle", "energy"}


def test_the_table_shows_each_member_of_the_front_on_both_splits(page, finished):
    header, *rows = page.tables[0]
    front = finished.front()
    assert header[:5] == ["key", "accuracy", "energy_mj", "test_accuracy", "test_energy_mj"]
    assert [row[0] for row in rows] == front["key"].tolist()
    for name in ("accuracy", "energy_mj", "test_accuracy", "test_energy_mj", "spikes"):
        shown = [float(row[header.index(name)]) for row in rows]
        assert shown == pytest.approx(front[name].tolist(), rel=1e-4)
    for column in finished.space.columns:
        assert column in header


def test_the_summary_says_how_many_and_both_hypervolumes(page, finished):
    text = " ".join(page.text)
    assert (
        f"{len(finished.front())} architectures on the front of 16 evaluations (0 failed) in a space of 288" in text
    )
    assert f"Hypervolume {finished.hypervolume():.4f}" in text
    assert f"random search with 16 evaluations {finished.hypervolume('random'):.4f}" in text


def test_facts_say_what_the_run_was_made_with(page, finished):
    facts = dict(page.tables[-1])
    assert facts["seed"] == "9"
    assert facts["space"] == "tiny, 288 architectures"
    assert facts["data"] == "digits"
    assert facts["algorithm"] == "nsga2, population 6"
    assert facts["training"].startswith("2 epochs, ")
    for name in ("torch", "pymoo", "ray", "optuna"):
        assert name in facts["versions"]


def test_facts_say_how_candidates_were_calibrated_and_scored(page):
    facts = dict(page.tables[-1])
    assert facts["calibration"] == "BatchNorm of each subnet on 32 training images, in batches of 64"
    assert facts["validation"] == "the first 60 validation images, products in exact precision"


def test_test_accuracies_have_intervals_of_the_test_images(page, finished):
    header, *rows = page.tables[0]
    images = len(finished.data.test)
    for row in rows:
        low, high = map(float, row[header.index("test_accuracy, 95 %")].split(" to "))
        accuracy = float(row[header.index("test_accuracy")])
        assert low < accuracy < high
        assert (low, high) == pytest.approx(wilson(accuracy, images), abs=1e-4)


def test_without_the_images_the_report_says_why_there_are_no_intervals(copied):
    values = json.loads((copied / RUN).read_text())
    values["images"] = "0" * 64
    (copied / RUN).write_text(json.dumps(values))
    page = Page(write_report(nas.Run(copied)).read_text(encoding="utf-8"))
    assert "test_accuracy, 95 %" not in page.tables[0][0]
    assert "There are no confidence intervals: the images of" in " ".join(page.text)


def test_the_largest_architecture_is_a_baseline(page, finished):
    (largest,) = finished.evaluations("reference").to_dict("records")
    figure = front_figure(finished, finished.evaluations(), finished.evaluations("random"), finished.front())
    (star,) = [trace for trace in figure.data if trace.name == "largest architecture"]
    assert (star.x, star.y) == ((largest["energy_mj"],), (largest["accuracy"],))
    text = " ".join(page.text)
    assert f"The largest architecture of the space has accuracy {largest['accuracy']:.4f} at energy_mj" in text
    as_good = finished.front().query("accuracy >= @largest['accuracy']")
    if len(as_good):
        best = as_good.sort_values("energy_mj").iloc[0]
        assert f"{best['key']} is as good or better" in text


def test_a_run_without_its_reference_study_has_no_star_and_a_report(copied):
    with closing(sqlite3.connect(copied / "study.db")) as database:
        database.execute("UPDATE trials SET state = 'FAIL' WHERE study_id = 1")
        database.commit()
    run = nas.Run(copied)
    figure = front_figure(run, run.evaluations(), run.evaluations("random"), run.front())
    assert "largest architecture" not in [trace.name for trace in figure.data]
    assert "The largest architecture" not in " ".join(Page(write_report(run).read_text(encoding="utf-8")).text)


def test_every_point_that_can_be_chosen_is_in_the_data_of_the_page(page, finished):
    (data,) = [json.loads(script) for script in page.scripts if script.startswith('{"folder"')]
    figure = front_figure(finished, finished.evaluations(), finished.evaluations("random"), finished.front())
    keys = {key for trace in figure.data for key in trace.customdata or ()}
    assert keys <= set(data["points"])
    names = [gene["name"] if gene["layer"] is None else f"{gene['name']}_{gene['layer']}" for gene in data["genes"]]
    assert names == list(finished.space.columns)
    for row in finished.front().to_dict("records"):
        point = data["points"][row["key"]]
        assert point["what"] == "on the front of the search"
        assert point["genes"] == [None if pd.isna(row[name]) else row[name] for name in names]
        assert point["metrics"] == [row[name] for name in finished.metrics]
        assert point["test"][0] == row["test_accuracy"]


def test_the_data_of_the_page_has_the_energy_of_each_layer_of_the_front(page, finished):
    (data,) = [json.loads(script) for script in page.scripts if script.startswith('{"folder"')]
    assert set(data["energy"]) == set(finished.front()["key"])
    key = finished.front()["key"][0]
    counts = finished.operations([key])[key]
    for name, found in zip(data["models"], data["energy"][key], strict=True):
        expected = energy_mj(counts, load_energy_model(name))
        assert sum(found["kinds"]) == pytest.approx(expected, rel=1e-4)
        assert sum(mj for _, mj, _ in found["layers"]) == pytest.approx(expected, rel=1e-4)


def test_a_run_without_failures_says_so(page):
    assert "None of 32 evaluations failed." in " ".join(page.text)


def test_the_front_figure_shows_evaluations_both_fronts_and_test_scores(finished):
    search, random, front = finished.evaluations(), finished.evaluations("random"), finished.front()
    traces = {trace.name: trace for trace in front_figure(finished, search, random, front).data}
    assert len(traces["evaluated"].x) == len(search) - search["is_pareto"].sum()
    assert sorted(traces["search, front"].y) == sorted(front["accuracy"])
    assert sorted(traces["search, front"].x) == sorted(front["energy_mj"])
    assert sorted(traces["random search, front"].y) == sorted(random.loc[random["is_pareto"], "accuracy"])
    tested = traces["the same networks, test split"]
    assert sorted(tested.y) == sorted(front["test_accuracy"])
    assert sorted(tested.x) == sorted(front["test_energy_mj"])
    for text, key in zip(traces["search, front"].text, front.sort_values("energy_mj")["key"], strict=True):
        assert key in text


def test_the_hypervolume_figure_shows_the_curves_of_search_and_baseline(finished):
    search, random = finished.evaluations(), finished.evaluations("random")
    traces = {trace.name: trace for trace in hypervolume_figure(finished, search, random).data}
    for name, frame in (("search", search), ("random search", random)):
        curve = hypervolume_curve(frame, finished.objectives, finished.reference)
        assert list(traces[name].y) == curve.tolist()
        assert list(traces[name].x) == list(range(1, 17))


def test_the_energy_of_the_front_stands_in_bars_of_kinds(page, finished):
    assert "on the first 60 validation images" in " ".join(page.text)
    (script,) = [s for s in page.scripts if re.search(r'newPlot\(\s*"energy"', s) and len(s) < 1_000_000]
    for key in finished.front()["key"]:
        assert key in script
    for name in ("convolution", "linear", "product", "neuron", "sop45", "memory"):
        assert f'"{name}"' in script


def test_a_long_front_is_counted_in_part_and_says_so(finished, copied, monkeypatch):
    monkeypatch.setattr("nas.report._ENERGY_MEMBERS", 2)
    monkeypatch.setattr("nas.report._LEAST_IMAGES", 10)
    monkeypatch.setattr("nas.report._ALL_IMAGES", 40)
    keys, asked = finished.front()["key"].tolist(), []
    assert len(keys) > 2
    operations = nas.Run.operations
    monkeypatch.setattr(
        nas.Run, "operations", lambda run, keys, *images: asked.append(keys) or operations(run, keys, *images)
    )
    text = " ".join(Page(write_report(nas.Run(copied)).read_text(encoding="utf-8")).text)
    assert asked == [[keys[0], keys[-1]]]
    assert f"2 of {len(keys)} members, spread over the front" in text
    assert "first 20 validation images, after calibration on 20 training images" in text


def test_a_front_without_its_supernet_says_why_there_are_no_bars(copied):
    for path in copied.glob("supernet*"):
        path.unlink()
    page = Page(write_report(nas.Run(copied)).read_text(encoding="utf-8"))
    assert "It cannot be counted:" in " ".join(page.text)
    assert len([s for s in page.scripts if "Plotly.newPlot(" in s and len(s) < 1_000_000]) == 4


def test_writing_it_again_gives_the_same_page_and_no_other_file(copied, snapshot):
    before = snapshot(copied)
    assert write_report(nas.Run(copied)) == copied / REPORT
    after = snapshot(copied)
    assert {name for name in after if after[name] != before.get(name)} <= {REPORT}


def test_a_run_that_was_only_trained_has_a_report(copied):
    for name in ("study.db", "front.csv", REPORT):
        (copied / name).unlink()
    page = Page(write_report(nas.Run(copied)).read_text(encoding="utf-8"))
    assert "0 architectures on the front of 0 evaluations (0 failed)" in " ".join(page.text)


# Text of others

OWN = f"""
class Own:
    metrics = {{"accuracy": "max", "energy_mj": "min", {EVIL!r}: "min"}}
    def __call__(self, candidate):
        return {{}}
"""


@pytest.fixture
def evil_run(tmp_path, own_module, space):
    """A run folder, never trained, with markup wherever a user's text can stand."""
    own_module("own_metrics", OWN)
    values = space.to_dict()
    space = SearchSpace.from_dict({**values, "name": EVIL})
    recipe = write_recipe(tmp_path, (METRICS, 'metrics = ["own_metrics:Own"]'))
    config = nas.load_recipe(recipe)
    create_folder(tmp_path / "run", config, space, None, {"metrics": metric_senses(config)})
    store = Store(open_storage(tmp_path / "run"), "search", space, OBJECTIVES)
    store.study.set_user_attr(REFERENCE, {"accuracy": 0.0, "energy_mj": 1.0})
    for architecture in list(space)[::20]:
        result = half_failing(architecture)
        metrics = {**result.metrics, EVIL: 1.0} if result.metrics else {}
        failure = None if result.metrics else f"ValueError: {EVIL}"
        store.open(architecture, 1)
        store.close(Evaluation(architecture, metrics, result.seconds, failure))
    return nas.Run(tmp_path / "run")


def test_markup_in_names_and_reasons_stays_text(evil_run):
    html = write_report(evil_run).read_text(encoding="utf-8")
    page = Page(html)
    assert EVIL in page.tables[0][0], "the metric's own column"
    assert dict(page.tables[-1])["space"].startswith(EVIL)
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert html.count("<script") == len([tag for tag, _ in page.tags if tag == "script"])
    assert not [script for script in page.scripts if script.strip().startswith("alert(")]
    assert "<img src=x" not in html


def test_what_was_not_yet_scored_on_the_test_split_is_no_number(evil_run):
    figure = front_figure(evil_run, evil_run.evaluations(), evil_run.evaluations("random"), evil_run.front())
    texts = [text for trace in figure.data for text in trace.text or ()]
    assert texts
    assert not [text for text in texts if "nan" in text]


def test_failures_are_listed_by_their_reasons(evil_run):
    frame = evil_run.evaluations()
    failed = frame[frame["state"] == "failed"]
    page = Page(write_report(evil_run).read_text(encoding="utf-8"))
    (table,) = [table for table in page.tables if table and table[0][0] == "times"]
    assert table[1:] == [[str(len(failed)), f"ValueError: {EVIL}", failed["key"].iloc[0]]]
    assert f"{len(failed)} of {len(frame)} evaluations of search and baseline failed" in " ".join(page.text)


def test_a_failed_half_is_counted_and_shown_on_no_figure(evil_run):
    frame = evil_run.evaluations()
    failed = int((frame["state"] == "failed").sum())
    assert 0 < failed < len(frame)
    page = Page(write_report(evil_run).read_text(encoding="utf-8"))
    assert f"of {len(frame)} evaluations ({failed} failed)" in " ".join(page.text)
    figure = front_figure(evil_run, frame, evil_run.evaluations("random"), evil_run.front())
    drawn = [y for trace in figure.data[:3] for y in trace.y]
    assert len(drawn) == len(frame) - failed
    assert all(y == y for y in drawn)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_markup_of_others_runs_in_no_browser(evil_run, tmp_path):
    path = write_report(evil_run)
    with browser(tmp_path / "profile") as tab:
        page = tab()
        page.open(path.as_uri())
        page.until("document.querySelector('#panel h3')")
        assert EVIL in page.evaluate("document.getElementById('panel').textContent")
        assert page.evaluate("document.querySelectorAll('img, iframe').length") == 0
        assert page.complaints == []
        assert page.requests == [path.as_uri()]
