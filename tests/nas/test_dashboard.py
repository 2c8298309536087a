"""The dashboard: a run in progress in a real browser, which is shown whole and never disturbed."""

import http.client
import json
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import pytest
from chromium import CHROMIUM, browser
from fakes import LITTLE, METRICS, write_recipe

import nas
from nas.backend import open_storage
from nas.dashboard import open_server
from nas.shown_storage import ONLY_SHOWN, ShownStorage, describe_run, split_note
from spaces import InputError

pytest.importorskip("optuna_dashboard")

SLOW = """
import time

class Slow:
    metrics = {"slow": "min"}
    def __call__(self, candidate):
        time.sleep(0.3)
        return {"slow": 1.0}
"""

JOURNAL = ('name = "tiny"\nseed = 9', 'name = "tiny"\nseed = 9\nstorage = "journal:shared.log"')


@contextmanager
def serving(run):
    """Serve the dashboard of a run; yields address and port."""
    server, address = open_server(run, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield address, server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(port, path, method="GET", host=None, body=None):
    """Return status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture
def under_way(tmp_path, own_module):
    """A run in progress in a process of its own, and that process."""
    own_module("slow_metric", SLOW)
    metrics = METRICS.replace('"parameters", "spikes"]', '"slow_metric:Slow"]')
    recipe = write_recipe(
        tmp_path, LITTLE, (METRICS, metrics), ("evaluations = 16", "evaluations = 24\nbaseline = false")
    )
    code = "import sys; sys.path.insert(0, sys.argv[1]); import nas; nas.search(sys.argv[2], sys.argv[3])"
    command = [sys.executable, "-c", code, str(tmp_path / "modules"), str(recipe), str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield tmp_path / "run", process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def results(folder):
    try:
        return int((nas.Run(folder).evaluations()["state"] == "complete").sum())
    except InputError:  # there is no run yet
        return 0


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_run_in_progress_is_shown_in_a_browser_and_ends_as_if_nobody_had_looked(under_way, tmp_path):
    folder, process = under_way
    end = time.monotonic() + 120
    while results(folder) < 7:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < end
        time.sleep(0.3)
    run = nas.Run(folder)
    with serving(run) as (address, port), browser(tmp_path / "profile") as tab:
        page = tab()
        page.open(address)
        page.until("document.querySelectorAll('.js-plotly-plot .point').length >= 7")
        text = page.evaluate("document.body.innerText")
        assert "Pareto Front" in text
        assert "accuracy" in text
        assert "energy_mj" in text
        page.open(f"{address}/note")
        page.until("document.body.innerText.includes('of 24 evaluations')")
        text = page.evaluate("document.body.innerText")
        assert "at work: " in text
        assert any(key in text for key in run.evaluations()["key"]), "the front of just now"
        assert page.complaints == []
        assert {url.split("/")[2] for url in page.requests if url.startswith("http")} == {f"127.0.0.1:{port}"}
        number = address.rsplit("/", 1)[1]
        while process.poll() is None:  # as a browser does all the time, and more often
            assert ask(port, f"/api/studies/{number}?after=0")[0] == 200
            time.sleep(0.2)
        assert process.returncode == 0, process.stderr.read().decode()
        time.sleep(5.1)  # until notes are written anew
        shown = json.loads(ask(port, f"/api/studies/{number}?after=0")[1])
    done = nas.Run(folder)
    frame = done.evaluations()
    assert (len(frame), set(frame["state"])) == (24, {"complete"})
    assert len(shown["trials"]) == 24
    assert shown["objective_names"] == ["accuracy", "energy_mj"]
    assert shown["note"]["body"].startswith("## tiny\n\n    finished: 24 of 24 evaluations")
    noted = {trial["number"] for trial in shown["trials"] if trial["note"]["body"].startswith("On the front.")}
    assert noted == set(done.front()["number"])


@pytest.fixture(scope="module")
def journaled(tmp_path_factory):
    """Two runs that share a journal."""
    folder = tmp_path_factory.mktemp("journal")
    recipe = write_recipe(folder, LITTLE, JOURNAL)
    few = {"evaluations": 4, "population": 2, "baseline": False}
    return [nas.search(recipe, folder / name, search=few) for name in ("one", "two")]


def test_a_run_in_a_shared_store_is_shown_without_its_neighbours(journaled):
    for run in journaled:
        storage = ShownStorage(nas.Run(run.folder))
        assert sorted(study.study_name for study in storage.get_all_studies()) == [
            "random",
            "reference",
            "search",
            "test",
        ]
        number = storage.get_study_id_from_name("search")
        keys = [trial.user_attrs["key"] for trial in storage.get_all_trials(number)]
        assert keys == run.evaluations()["key"].tolist()
        assert storage.get_study_name_from_id(number) == "search"
        assert storage.get_trial(storage.get_all_trials(number)[0]._trial_id).user_attrs["key"] == keys[0]


def test_looking_writes_nothing(copied, snapshot):
    before = snapshot(copied)
    with serving(nas.Run(copied)) as (address, port):
        number = address.rsplit("/", 1)[1]
        for path in ("/api/meta", "/api/studies", f"/api/studies/{number}", f"/csv/{number}", "/dashboard"):
            assert ask(port, path)[0] == 200
    assert snapshot(copied) == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/studies"),
        ("POST", "/api/studies/NUMBER/rename"),
        ("DELETE", "/api/studies/NUMBER"),
        ("PUT", "/api/studies/NUMBER/note"),
        ("POST", "/api/trials/1/tell"),
        ("POST", "/api/trials/1/user-attrs"),
        ("POST", "/incompatible-rdb-schema"),
    ],
)
def test_whatever_would_change_the_run_is_forbidden(method, path, copied, snapshot):
    before = snapshot(copied)
    with serving(nas.Run(copied)) as (address, port):
        status, body = ask(port, path.replace("NUMBER", address.rsplit("/", 1)[1]), method, body=b"{}")
    assert (status, json.loads(body)["reason"]) == (403, ONLY_SHOWN)
    assert snapshot(copied) == before


def test_the_storage_itself_refuses_every_way_to_write(copied, snapshot):
    before, storage = snapshot(copied), ShownStorage(nas.Run(copied))
    reading = {name for name in dir(storage) if name.startswith("get_")}
    writing = set(ShownStorage.__mro__[1].__abstractmethods__) - reading
    assert len(writing) == 10
    for name in writing:
        with pytest.raises(PermissionError, match=ONLY_SHOWN):
            getattr(storage, name)(1, 2, 3)
    assert snapshot(copied) == before


def test_pages_from_elsewhere_cannot_read_it_under_a_name_of_their_own(finished):
    with serving(finished) as (_, port):
        assert ask(port, "/api/studies", host="example.org")[0] == 403
        assert ask(port, "/api/studies", host=f"localhost:{port}")[0] == 200


def test_violations_of_constraints_are_told_to_the_dashboard(copied):
    values = json.loads((copied / "run.json").read_text())
    values["recipe"]["search"]["constraints"] = {"max_parameters": 7000}
    (copied / "run.json").write_text(json.dumps(values))
    run = nas.Run(copied)
    storage, frame = ShownStorage(run), run.evaluations()
    trials = storage.get_all_trials(storage.get_study_id_from_name("search"), deepcopy=False)
    kept = [trial.system_attrs["constraints"] == [0.0] for trial in trials]
    assert kept == frame["feasible"].tolist()
    assert 0 < sum(kept) < len(kept)
    assert "Constraints: max_parameters = 7000." in describe_run(run)[0]


def test_a_long_note_is_split_into_what_the_dashboard_puts_together():
    from optuna_dashboard._note import get_note_from_system_attrs

    text = "".join(map(str, range(2000)))
    for trial in (None, 7):
        found = split_note(text, trial)
        assert max(len(part) for part in found.values() if isinstance(part, str)) <= 2045
        assert get_note_from_system_attrs(found, trial)["body"] == text


def test_a_store_without_a_study_is_nothing_to_show(copied):
    (copied / "study.db").unlink()
    open_storage(copied)
    with pytest.raises(InputError, match="has not begun; begin it with `nas search`"):
        open_server(nas.Run(copied), "127.0.0.1", 0)


def test_a_front_that_is_not_there_yet_has_a_note_too(copied):
    with closing(sqlite3.connect(copied / "study.db")) as database:
        database.execute("UPDATE trials SET state = 'RUNNING'")
        database.commit()
    text, members = describe_run(nas.Run(copied))
    assert "There is no front yet." in text
    assert members == {}


# The command


def test_a_run_that_has_not_begun_is_one_line(command, trained):
    code, out, err = command("dashboard", trained)
    assert (code, out) == (2, "")
    assert err.startswith("error: a dashboard shows what has been evaluated, but the search of")


def test_a_folder_that_is_no_run_is_one_line(command, tmp_path):
    code, _, err = command("dashboard", tmp_path)
    assert (code, len(err.splitlines())) == (2, 1)


def test_without_the_extra_the_command_says_what_to_install(command, finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    code, out, err = command("dashboard", finished.folder)
    assert (code, out) == (2, "")
    assert "pip install 'spikefront[dashboard]'" in err


@pytest.mark.parametrize("host", ["", "256.0.0.1", "192.0.2.1", "x" * 70])
def test_an_address_that_cannot_be_had_is_one_line(host, command, finished):
    code, _, err = command("dashboard", finished.folder, "--host", host, "--port", 0)
    assert code == 2
    assert err.startswith("error: the dashboard must have an address of this machine and a free port")
    assert len(err.splitlines()) == 1


def test_a_port_in_use_is_one_line(command, finished):
    with serving(finished) as (_, port):
        code, _, err = command("dashboard", finished.folder, "--port", port)
    assert code == 2
    assert "Address already in use" in err


def test_the_command_serves_on_this_machine_only_until_it_is_interrupted(finished):
    import signal

    code = "import sys; from nas.cli import main; main()"
    command = [sys.executable, "-c", code, "dashboard", str(finished.folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:")
        assert line.rstrip().endswith("Ctrl-C ends it")
        port = int(line.split(":")[2].split("/")[0])
        assert ask(port, "/api/meta")[0] == 200
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.wait()
