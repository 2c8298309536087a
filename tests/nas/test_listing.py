"""Lists of architectures that a search begins with: the forms they may have, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from test_cli_refusals import refused
from test_table_runs import write_run

from nas.listing import read_architectures


@pytest.mark.parametrize("form", ["genes", "to_dict", "rows", "csv"])
def test_lists_of_networks_may_have_them_in_any_form(form, space, tmp_path):
    rng = np.random.default_rng(0)
    wanted = list(dict.fromkeys(space.sample_genes(rng) for _ in range(20)))
    path = tmp_path / ("list.csv" if form == "csv" else "list.json")
    frame = pd.DataFrame([{"key": a.key, **a.genes} for a in wanted])
    if form == "csv":
        frame.to_csv(path, index=False)
    elif form == "rows":
        frame.to_json(path, orient="records")
    else:
        path.write_text(json.dumps([a.to_dict() if form == "to_dict" else a.genes for a in wanted]))
    assert read_architectures(path, space) == wanted
    assert {a.depth for a in wanted} == {1, 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listed")
    write_run(folder)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        (
            "none.json",
            None,
            "search.warm_start must be a run folder or a file of architectures, one of ['.csv', '.json']",
        ),
        ("list.txt", "[]", "must be a run folder or a file of architectures"),
        ("empty", "folder", "empty, which has no run.json"),
        ("list.json", "[]", "a list of architectures must have one or more, got none in"),
        ("list.csv", "width,op,wide\n", "a list of architectures must have one or more, got none in"),
        ("list.json", "{}", "must hold a list of architectures, got dict"),
        ("list.json", "[", "must be a JSON file that can be read"),
        ("list.json", "[" * 99999, "must be a JSON file that can be read"),
        ("list.json", "[3]", "list.json, number 1 must be the genes of an architecture by name, got 3"),
        ("list.csv", b"\xff\xfe\x00", "must be a CSV file that can be read"),
        (
            "list.csv",
            "width,op\n8,conv\n",
            "line 2 must have all genes of its architecture, but ['wide'] are missing",
        ),
        (
            "list.csv",
            "width,op,wide\n8,conv,True\n8,,True\n",
            "line 3 must have all genes of its architecture, but ['op']",
        ),
        ("list.csv", "width,op,wide\n9,conv,True\n", "line 2: width must be one of [8, 16, 32, 64, 128], got '9'"),
        (
            "list.json",
            '[{"width": 8, "op": "conv", "wide": 1}]',
            "number 1: wide must be one of [False, True], got 1",
        ),
        (
            "list.json",
            '[{"width": true, "op": "conv", "wide": true}]',
            "width must be one of [8, 16, 32, 64, 128], got True",
        ),
        ("list.json", "[" * 200_000, "list.json must be a JSON file that can be read"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_search_cannot_begin_with_is_refused(file, content, text, folder, tmp_path, command):
    path = tmp_path / file
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    err = refused(command("search", folder / "known.toml", "--out", tmp_path / "run", "--warm-start", path))
    assert text in err
    assert not (tmp_path / "run").exists()


def test_a_path_that_no_file_can_have_is_refused(folder, tmp_path, command):
    err = refused(command("search", folder / "known.toml", "--out", tmp_path / "run", "--warm-start", "a" * 5000))
    assert "search.warm_start must be a path" in err
