"""What the report shows of fidelity, where the run folder has it, and says where it is damaged."""

import json
import re

import pytest
from test_report import EVIL, Page

import nas
from nas.fidelity_file import FIDELITY, read_fidelity
from nas.fidelity_page import fidelity_figure
from nas.orders import Fidelity, Point
from nas.report import write_report

LAYER = {"mlp_ratio": 1.0, "num_heads": 1, "v_threshold": 1.0, "tau": 2.0}


def measured(*standalone):
    """Return what ``fidelity.json`` holds of as many networks, the first of which was trained twice."""
    points = tuple(
        Point(f"key{number}", "space", number / 10, (value,) * (1 + (number < 2)), {"depth": 1, "layers": [LAYER]})
        for number, value in enumerate(standalone)
    )
    return Fidelity(points, {"epochs": 3}).to_dict()


def reported(folder):
    return Page(write_report(nas.Run(folder)).read_text(encoding="utf-8"))


def test_a_report_without_fidelity_does_not_speak_of_it(copied):
    assert "Fidelity" not in reported(copied).text


def test_fidelity_that_the_folder_has_is_shown(copied):
    (copied / FIDELITY).write_text(json.dumps(measured(0.1, 0.2, 0.4, 0.3)))
    page = reported(copied)
    text = " ".join(page.text)
    assert "4 networks were also trained by themselves" in text
    assert "Kendall tau 0.667" in text
    assert "Spearman 0.800" in text
    assert "between 2 trainings of 2 subnets" in text
    assert any(re.search(r'newPlot\(\s*"fidelity"', script) for script in page.scripts)


def test_what_has_no_order_and_no_ceiling_is_shown_as_such(copied):
    values = measured(0.5, 0.5)
    for point in values["points"]:
        point["standalone_by_seed"] = [0.5]
    (copied / FIDELITY).write_text(json.dumps(values))
    text = " ".join(reported(copied).text)
    assert "Kendall tau undefined" in text
    assert "nothing was trained twice" in text


def changed(**changes):
    values = measured(0.1, 0.2)
    values["points"][0] |= changes
    return json.dumps(values)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "Input should be a dictionary"),
        ("[" * 100_000, "recursion"),
        (json.dumps({"settings": {}}), "points: Field required"),
        (json.dumps({"settings": {}, "points": []}), "points: Tuple should have at least 1 item"),
        (json.dumps({"settings": {}, "points": [EVIL]}), "points.0: Input should be a dictionary"),
        (changed(inherited=2), "points.0.inherited: Input should be less than or equal to 1"),
        (changed(standalone_by_seed=[float("nan")]), "points.0.standalone_by_seed.0: Input should be"),
        (changed(standalone_by_seed=[]), "points.0.standalone_by_seed: Tuple should have at least 1 item"),
        (changed(source=EVIL), "points.0.source: Input should be 'front' or 'space'"),
    ],
)
def test_fidelity_that_is_not_right_is_said_to_be_so_and_ends_nothing(content, reason, copied):
    (copied / FIDELITY).write_text(content)
    text = " ".join(reported(copied).text)
    assert "It cannot be shown: fidelity.json must be what `nas fidelity` writes, but: " in text
    assert reason in text


@pytest.mark.parametrize("genes", [{}, {"layers": 3}, {"layers": [{"tau": EVIL}]}, {EVIL: EVIL, "layers": []}])
def test_genes_of_another_kind_end_nothing_and_run_nothing(genes, copied):
    (copied / FIDELITY).write_text(changed(genes=genes))
    page = reported(copied)
    assert "2 networks were also trained by themselves" in " ".join(page.text)
    assert EVIL not in (copied / "report.html").read_text()
    texts = [text for trace in fidelity_figure(read_fidelity(copied)).data for text in trace.text or ()]
    assert len(texts) == 2
    assert not any("<script" in text for text in texts)
