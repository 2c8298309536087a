"""The report in a real browser: what it shows, what it fetches, and how it is used by mouse, keys and in the dark."""

import io
import json

import pytest
from chromium import CHROMIUM, browser
from PIL import Image
from test_table_runs import results, write_run

import nas
from evaluators import energy_mj, load_energy_model
from nas.report import REPORT

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

HEADING = "document.querySelector('#panel h3').textContent"
CHOSEN = "document.querySelector('#members tr[aria-selected=true]').dataset.key"
FOCUSED = "document.activeElement.dataset.key || ''"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """A browser's way to open tabs."""
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def page(tab, finished):
    """The report of the finished run, drawn."""
    page = tab()
    page.open((finished.folder / REPORT).as_uri())
    page.until("document.querySelectorAll('#front .point').length && document.querySelector('#panel h3')")
    return page


def members(page):
    """Return the front's points, those that stand most alone last: middles in pixels of the window, and keys."""
    return page.evaluate(
        """(() => {
            const figure = document.getElementById("front");
            figure.scrollIntoView();
            const trace = figure._fullData.find((each) => each.name === "search, front");
            const middle = (node) => {
                const box = node.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            };
            const nodes = Array.from(figure.querySelectorAll(`.trace${trace.uid} path.point`));
            const all = Array.from(figure.querySelectorAll(".scatterlayer path.point"));
            const room = (node) => Math.min(...all.filter((other) => other !== node).map((other) =>
                Math.hypot(middle(node)[0] - middle(other)[0], middle(node)[1] - middle(other)[1])));
            return nodes.map((node, index) => [...middle(node), trace.customdata[index], room(node)])
                .sort((one, other) => one[3] - other[3]);
        })()"""
    )


def colours(page, selector, name):
    """Return a colour of an element as red, green and blue from 0 to 255."""
    style = f"getComputedStyle(document.querySelector({json.dumps(selector)})).{name}"
    return [float(part) for part in page.evaluate(style).removeprefix("rgb(").removesuffix(")").split(",")]


def luminance(colour):
    """Return the relative luminance of a colour, as WCAG has it."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_figures_are_drawn_without_complaints_and_nothing_is_fetched(page, finished):
    complete = (finished.evaluations()["state"] == "complete").sum()
    assert len(members(page)) == len(finished.front())
    assert page.evaluate("document.querySelectorAll('#front .point').length") >= complete
    for name in ("hypervolume", "idle", "energy", "genes"):
        page.until(f"document.querySelector('#{name} .main-svg')")
    assert page.evaluate("document.querySelectorAll('#hypervolume .scatterlayer path.js-line').length") == 2
    assert page.evaluate("document.querySelectorAll('#genes .bars .point').length") > 7
    assert page.complaints == []
    assert page.requests == [(finished.folder / REPORT).as_uri()]


def test_the_page_can_fetch_nothing_though_it_tried(page):
    tried = "fetch('https://example.org/').then(() => 'fetched', () => 'refused')"
    assert page.evaluate(tried) == "refused"
    assert any("Content Security Policy" in complaint for complaint in page.complaints)


def test_the_mouse_shows_the_genes_of_a_point_and_a_click_chooses_it(page, finished):
    x, y, key, _ = members(page)[-1]
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert key in page.until("document.querySelector('#front .hoverlayer')?.textContent")
    first = page.evaluate(HEADING)
    page.click(x, y)
    page.until(f"{HEADING} === {json.dumps(key)}")
    assert first == finished.front()["key"][0]
    assert page.evaluate(CHOSEN) == key
    row = finished.front().set_index("key").loc[key]
    text = page.evaluate("document.getElementById('panel').innerText")
    for name in ("embed_dim", "timesteps", "depth"):
        assert f"{name}\t{row[name]:g}" in text
    for gene in ("mlp_ratio", "num_heads", "v_threshold", "tau"):
        values = [row[f"{gene}_{layer}"] for layer in range(int(row["depth"]))]
        assert "\t".join([gene, *(f"{value:g}" for value in values)]) in text
    assert "test accuracy, 95 %: " in text


def test_a_point_that_was_only_evaluated_shows_its_genes_and_how_to_count_its_energy(page, finished):
    key = finished.evaluations().query("state == 'complete' and not is_pareto")["key"].iloc[0]
    page.evaluate(f"document.getElementById('front').emit('plotly_click', {{points: [{{customdata: '{key}'}}]}})")
    assert page.evaluate(HEADING) == key
    text = page.evaluate("document.getElementById('panel').innerText")
    assert "evaluated by the search" in text
    assert f"nas energy runs/tiny {key}" in text
    assert page.evaluate("document.querySelectorAll('#members tr[aria-selected=true]').length") == 0


def test_the_energy_of_the_chosen_point_is_shown_under_the_chosen_model(page, finished):
    key = finished.front()["key"][0]
    counts = finished.operations([key])[key]
    for name in ("sop45", "memory"):
        page.evaluate(
            f"""(() => {{
                const chooser = document.getElementById("model");
                chooser.value = "{name}";
                chooser.dispatchEvent(new Event("change"));
            }})()"""
        )
        text = page.evaluate("document.getElementById('panel').innerText")
        (total,) = [line.split("\t")[1] for line in text.splitlines() if line.startswith("all\t")]
        assert float(total.removesuffix(" mJ")) == pytest.approx(energy_mj(counts, load_energy_model(name)), rel=1e-3)
        assert "head\t" in text


def test_the_front_is_reached_and_walked_by_keys_alone(page, finished):
    keys = finished.front()["key"].tolist()
    for _ in range(60):
        page.press("Tab")
        if page.evaluate(FOCUSED):
            break
    assert page.evaluate(FOCUSED) == keys[0]
    page.press("ArrowDown")
    assert page.evaluate(FOCUSED) == page.evaluate(HEADING) == page.evaluate(CHOSEN) == keys[1]
    page.press("End")
    assert page.evaluate(FOCUSED) == page.evaluate(HEADING) == keys[-1]
    page.press("ArrowDown")
    assert page.evaluate(FOCUSED) == keys[-1]
    page.press("ArrowUp")
    page.press("ArrowUp")
    assert page.evaluate(HEADING) == keys[-3]
    ring = page.evaluate("(({x, y}) => [x[0], y[0]])(document.getElementById('front').data.at(-1))")
    row = finished.front().iloc[-3]
    assert ring == pytest.approx([row["energy_mj"], row["accuracy"]])
    assert page.evaluate("document.querySelectorAll('#members tr[tabindex=\"0\"]').length") == 1
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.press("Home")
    assert page.evaluate(HEADING) == keys[0]
    assert page.complaints == []


@pytest.mark.parametrize(("scheme", "media"), [("light", ""), ("dark", ""), ("dark", "print")])
def test_text_is_readable_in_the_light_in_the_dark_and_in_print(page, scheme, media):
    page.prefer(scheme, media)
    paper = colours(page, "body", "backgroundColor")
    assert (luminance(paper) < 0.05) == (scheme == "dark" and not media)
    texts = [("body", "color"), (".lead", "color"), ("#members th", "color"), ("nav a", "color")]
    texts += [("#front .xtick text", "fill"), ("#front .legendtext", "fill"), ("#front .ytitle", "fill")]
    for selector, name in texts:
        assert contrast(colours(page, selector, name), paper) >= 4.5, selector
    for colour in ("#0072B2", "#D55E00", "#009E73", "#8A8A8A"):
        drawn = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert contrast(drawn, paper) >= 3, colour
    if media:
        assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert page.evaluate("getComputedStyle(document.getElementById('panel')).maxHeight") == "none"


def test_a_narrow_window_has_the_panel_below_and_never_scrolls_sideways(page):
    page.resize(420, 900)
    page.until("document.getElementById('panel').getBoundingClientRect().left < 40")
    page.until("document.documentElement.scrollWidth <= 420")


def test_a_picture_of_the_page_is_not_blank(page):
    page.evaluate("document.getElementById('front').scrollIntoView()")
    with Image.open(io.BytesIO(page.picture())) as image:
        pixels = set(image.convert("RGB").get_flattened_data())
    assert (0, 0x72, 0xB2) in pixels, "the front's blue"


def test_the_picture_of_a_networks_energy_is_drawn_too(tab, command, finished, tmp_path):
    key = finished.front()["key"][0]
    assert command("energy", finished.folder, key, "--html", tmp_path / "energy.html")[0] == 0
    page = tab()
    page.open((tmp_path / "energy.html").as_uri())
    page.until("document.querySelectorAll('.bars .point').length")
    assert page.complaints == []
    assert len(page.requests) == 1


LINK = '<a href="https://example.org/">here</a><script>alert(1)</script>'
"""Markup that plotly would make a link of."""


def test_names_and_choices_of_a_table_are_text_in_figures_too(tab, tmp_path):
    quality, cost, width = f"{LINK}acc", f"{LINK}mj", f"{LINK}width"
    table = (
        results().rename(columns={"acc": quality, "energy_mj": cost, "width": width}).replace({"op": {"conv": LINK}})
    )
    changes = (
        ('{ acc = "max", energy_mj =', f'{{ {json.dumps(quality)} = "max", {json.dumps(cost)} ='),
        ('test = { acc = "acc_held_out" }', ""),
        ('["acc", "energy_mj"]', json.dumps([quality, cost])),
        ('"width"', json.dumps(width)),
    )
    run = nas.search(write_run(tmp_path, *changes, table=table), tmp_path / "run")
    page = tab()
    page.open((run.folder / REPORT).as_uri())
    page.until("document.querySelectorAll('#front .point').length && document.querySelector('#genes .bartext')")
    x, y, *_ = members(page)[-1]
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    hovered = page.until("document.querySelector('#front .hoverlayer')?.textContent")
    assert f"{quality} " in hovered
    assert f"{width} " in hovered
    assert quality in page.evaluate("document.querySelector('#front .ytitle').textContent")
    assert cost in page.evaluate("document.querySelector('#front .xtitle').textContent")
    assert width in page.evaluate("document.querySelector('#genes').textContent")
    assert f"op {LINK}" in page.evaluate("document.querySelector('#panel').textContent").replace("op<", "op <")
    assert page.evaluate("document.querySelectorAll('svg a').length") == 0
    assert page.complaints == []
