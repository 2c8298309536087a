"""The command ``nas``: what it prints, and that wrong input is one line on standard error and exit code 2."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fakes import LITTLE, METRICS, write_recipe

import nas
from nas.profile import profile_space
from spaces import load_space

NAS = Path(sys.executable).with_name("nas")


def read_csv(text):
    return pd.read_csv(io.StringIO(text))


# Output


def test_profile_prints_json_csv_and_a_table_of_the_same_numbers(command, recipe):
    path = recipe.parent / "space.toml"
    frame = profile_space(load_space(path), 7)
    code, out, err = command("profile", path, "--samples", 7, "-f", "json")
    assert (code, err) == (0, "")
    pd.testing.assert_frame_equal(pd.DataFrame(json.loads(out)), frame, check_dtype=False, check_exact=True)
    code, out, err = command("profile", path, "--samples", 7, "--format", "csv")
    assert (code, err) == (0, "")
    pd.testing.assert_frame_equal(read_csv(out), frame, check_dtype=False, check_exact=True)
    code, out, err = command("profile", path, "--samples", 7)
    assert (code, err) == (0, "")
    assert "tiny: 288 architectures (288)" in out
    assert re.search(r"embed_dim +8, 16\n", out)
    for row in frame.itertuples():
        assert re.search(rf"{row.architecture} .* {row.parameters} .* {row.macs} ", out)
    assert "median: each column by itself, over 7 random architectures" in out


def test_profile_takes_another_input(command):
    changes = ["--image-size", 16, "--channels", 3, "--classes", 5, "--samples", 3]
    code, out, _ = command("profile", "digits", *changes, "-f", "json")
    other = profile_space(load_space("digits").with_input(16, 3, 5), 3)
    assert code == 0
    assert [row["macs"] for row in json.loads(out)] == other["macs"].tolist()
    assert other["macs"][0] > profile_space(load_space("digits"), 3)["macs"][0]


def test_train_says_what_it_did_and_goes_on_or_refuses(command, tmp_path, snapshot):
    recipe = write_recipe(tmp_path, LITTLE)
    code, out, err = command("train", recipe, "--out", tmp_path / "run")
    assert code == 0
    assert re.fullmatch(
        rf"{tmp_path}/run: 2 epochs in \d+ s, loss \d\.\d{{4}}, training accuracy 0\.\d{{4}}",
        "".join(out.split("\n")),
    )
    assert err.splitlines()[-1].startswith("training: epoch 2.0/2")
    weights = (tmp_path / "run" / "supernet-00002.safetensors").read_bytes()
    code, again, err = command("train", recipe, "--out", tmp_path / "run", "--resume")
    assert (code, again, err) == (0, out, ""), "nothing is left to train"
    before = snapshot(tmp_path / "run")
    code, out, err = command("train", recipe, "--out", tmp_path / "run", "--no-resume")
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"error: .*run already has a checkpoint, and it is never overwritten; choose another --out\n", err
    )
    assert snapshot(tmp_path / "run") == before
    assert (tmp_path / "run" / "supernet-00002.safetensors").read_bytes() == weights
    code, out, _ = command("train", recipe, "--out", tmp_path / "other", "--no-resume")
    assert code == 0
    assert (tmp_path / "other" / "supernet-00002.safetensors").read_bytes() == weights


def test_search_replays_a_finished_run_and_prints_its_front(command, copied, recipe, finished):
    front = finished.front()
    code, out, err = command("search", recipe, "--out", copied)
    assert code == 0
    assert [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")] == front["key"].tolist()
    last = f"hypervolume {finished.hypervolume():.4f}, random search {finished.hypervolume('random'):.4f}"
    assert last in out.splitlines()
    assert out.splitlines()[-1] == f"report: {copied}/report.html"
    assert "search: 16/16" in err
    assert "random: 16/16" in err


@pytest.mark.parametrize("form", ["json", "csv"])
def test_search_prints_nothing_but_the_data_that_was_asked_for(form, command, copied, recipe, finished):
    code, out, _ = command("search", recipe, "--out", copied, "-f", form)
    assert code == 0
    frame = pd.DataFrame(json.loads(out)) if form == "json" else read_csv(out)
    assert frame["key"].tolist() == finished.front()["key"].tolist()


def test_options_of_search_replace_keys_of_the_recipe(command, copied, recipe):
    code, _, _ = command("search", recipe, "--out", copied, "--evaluations", 17, "--pool", "local", "--workers", 5)
    assert code == 0
    run = nas.Run(copied)
    assert len(run.evaluations()) == 17
    assert (run.config.search.evaluations, run.config.workers.count) == (17, 5)


@pytest.mark.parametrize("form", ["json", "csv"])
def test_front_prints_all_columns_with_all_their_digits(form, command, finished):
    code, out, err = command("front", finished.folder, "-f", form)
    assert (code, err) == (0, "")
    front = finished.front()
    frame = pd.DataFrame(json.loads(out)) if form == "json" else read_csv(out)
    assert frame.columns.tolist() == front.columns.tolist()
    assert frame["failure"].isna().all()
    pd.testing.assert_frame_equal(
        frame.drop(columns="failure"), front.drop(columns="failure"), check_dtype=False, check_exact=True
    )


def test_front_prints_a_table_that_fits_a_screen(command, finished):
    code, out, err = command("front", finished.folder)
    assert (code, err) == (0, "")
    for row in finished.front().itertuples():
        assert re.search(
            rf"│ {row.key} │ +{row.accuracy:.5g} │ +{row.energy_mj:.5g} │ +{row.test_accuracy:.5g} ", out
        )
    assert max(map(len, out.splitlines())) <= 200


def test_front_of_a_run_that_was_only_trained_is_empty(command, copied):
    for name in ("study.db", "front.csv", "report.html"):
        (copied / name).unlink()
    assert command("front", copied, "-f", "json") == (0, "[]\n", "")
    code, out, _ = command("front", copied)
    assert (code, "accuracy" in out) == (0, True)
    assert not (copied / "study.db").exists(), "looking at a run creates nothing"


def test_report_is_written_anew(command, copied):
    (copied / "report.html").unlink()
    assert command("report", copied) == (0, f"{copied}/report.html\n", "")
    assert (copied / "report.html").stat().st_size > 1_000_000


def test_runs_go_to_a_folder_of_their_name_by_default(command, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path, LITTLE)
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("train", recipe)
    assert code == 0
    assert out.startswith("runs/tiny: 2 epochs")
    assert (tmp_path / "runs" / "tiny" / "supernet.json").exists()
    code, _, err = command("train", recipe, "--no-resume")
    assert code == 2
    assert err.startswith("error: runs/tiny already has a checkpoint")


def test_the_version_and_the_commands_are_printed(command):
    code, out, _ = command("--version")
    assert code == 0
    assert re.fullmatch(r"spikefront \d+\.\d+\.\d+\n", out)
    code, out, _ = command("--help")
    assert code == 0
    for name in ("profile", "train", "search", "front", "report"):
        assert re.search(rf"\b{name}\b", out)


# As a process


def run_nas(*arguments, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "SPIKEFRONT_DATA"}
    environment["OMP_NUM_THREADS"] = "1"  # more would be slower on so little work
    return subprocess.run(
        [NAS, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False, env=environment
    )


def test_the_installed_command_refuses_with_one_line_and_code_2(tmp_path):
    result = run_nas("front", tmp_path, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(
        r"error: .* is not a run folder: it has no run\.json; start one with `nas search`\n", result.stderr
    )


def test_modules_of_a_recipe_are_found_in_the_working_directory(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Depth:\n    metrics = {'depth_cost': 'min'}\n"
        "    def __call__(self, candidate):\n        return {'depth_cost': float(candidate.architecture.depth)}\n"
    )
    recipe = write_recipe(tmp_path, LITTLE, (METRICS, 'metrics = ["accuracy", "energy_mj", "mine:Depth"]'))
    result = run_nas("search", recipe.name, "--out", "run", "--evaluations", 3, "-f", "csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    frame = read_csv(result.stdout)
    assert (frame["depth_cost"] == frame["depth"]).all()
