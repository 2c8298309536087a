"""The report: one page that needs no network, with all numbers, and with nothing in it that could run but plotly."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from fakes import METRICS, OBJECTIVES, half_failing, write_recipe
from PIL import Image

import nas
from nas.backend import open_storage
from nas.evaluation import Evaluation
from nas.folder import create_folder
from nas.report import REPORT, front_figure, hypervolume_figure, write_report
from nas.results import hypervolume_curve
from nas.run import REFERENCE
from nas.storage import Store
from spaces import SearchSpace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
        assert attributes.get("http-equiv") is None


def test_styles_fetch_nothing(finished):
    html = (finished.folder / REPORT).read_text(encoding="utf-8")
    for style in re.findall(r"<style>(.*?)</style>", html, re.DOTALL):
        assert "url(" not in style
        assert "@import" not in style


def test_plotly_is_embedded_once_and_draws_three_figures(page):
    libraries = [script for script in page.scripts if len(script) > 1_000_000]
    assert len(libraries) == 1
    calls = [script for script in page.scripts if "Plotly.newPlot(" in script and len(script) < 1_000_000]
    assert len(calls) == 3
    ids = {attributes.get("id") for tag, attributes in page.tags if tag == "div"}
    assert ids >= {"front", "hypervolume", "energy"}


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
    (script,) = [
        s for s in page.scripts if "Plotly.newPlot(" in s and '"barmode":"stack"' in s and len(s) < 1_000_000
    ]
    for key in finished.front()["key"]:
        assert key in script
    for name in ("convolution", "linear", "product", "neuron", "sop45", "memory"):
        assert f'"{name}"' in script


def test_a_long_front_is_counted_in_part_and_says_so(finished, copied, monkeypatch):
    monkeypatch.setattr("nas.report._ENERGY_MEMBERS", 2)
    monkeypatch.setattr("nas.report._ENERGY_IMAGES", 20)
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
    assert len([s for s in page.scripts if "Plotly.newPlot(" in s and len(s) < 1_000_000]) == 2


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
    create_folder(tmp_path / "run", config, space, None)
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


# A real browser


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_draws_the_front_without_console_errors(finished, evil_run, tmp_path):
    for run in (finished, evil_run):
        path = write_report(run)
        result = subprocess.run(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                "--enable-logging=stderr",
                "--v=0",
                "--virtual-time-budget=8000",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--dump-dom",
                path.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=200,
            check=True,
        )
        console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
        assert console == []
        dom = result.stdout
        figure = dom[dom.index('id="front"') : dom.index('id="hypervolume"')]
        points = len(re.findall(r'<path class="point', figure))
        complete = (run.evaluations()["state"] == "complete").sum()
        assert points >= complete >= len(run.front()) >= 1
        assert len(re.findall(r'<path class="js-line', dom[dom.index('id="hypervolume"') :])) >= 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_takes_a_picture_of_the_report_that_is_not_blank(finished, tmp_path):
    picture = tmp_path / "report.png"
    subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--virtual-time-budget=8000",
            "--window-size=1200,900",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={picture}",
            (finished.folder / REPORT).as_uri(),
        ],
        capture_output=True,
        timeout=200,
        check=True,
    )
    with Image.open(picture) as image:
        pixels = set(image.convert("RGB").get_flattened_data())
    assert (0, 0x72, 0xB2) in pixels, "the front's blue"
