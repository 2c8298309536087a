"""A driver that joins a run: whom it looks for, what it scores, and how it leaves."""

import os
import signal
import threading
import time

import pytest
from fakes import Listener, OnePerson, evaluation, some
from test_table_runs import write_run

import nas
from nas.config import load_recipe
from nas.drivers import hold_folder
from nas.evaluation import this_process
from nas.folder import HeldError
from nas.helping import _answer, _work, help_out, wait_for_leader
from nas.interrupt import DrainedPool
from nas.joining import SharedPool, shared, write_message
from nas.pipeline import prepare
from nas.sections import WorkersConfig
from spaces import InputError


class Table:
    """A job of the toy problem."""

    threads, device = 1, "cpu"

    def open(self):
        return self

    def score_together(self, architectures, split="validation"):
        yield from map(evaluation, architectures)


def test_who_helps_scores_what_it_is_handed_until_nobody_leads(space, tmp_path, quick, listener):
    (tmp_path / "run.json").write_text("{}")
    architectures, results = some(space, 12), []

    def lead():
        with hold_folder(tmp_path), shared(OnePerson(), tmp_path, space, print) as pool:
            begun.set()
            while not pool._guests:
                pool._look()
                time.sleep(0.01)
            for architecture in architectures:
                pool.submit(architecture)
            results.extend(pool.collect() for _ in architectures)

    begun = threading.Event()
    leader = threading.Thread(target=lead)
    leader.start()
    begun.wait(10)
    listener.start("shared", 12, {})
    token = wait_for_leader(tmp_path, listener)
    count = help_out(tmp_path, token, Table(), WorkersConfig(pool="local"), space, listener)
    leader.join(10)
    assert {result.architecture for result in results} == set(architectures)
    assert 0 < count <= 12
    assert [result.worker for result in results].count(this_process()) == count
    assert any("sharing the work" in line for line in listener.steps)


@pytest.mark.parametrize("damage", ["{", '{"genes": {}, "split": "x"}'])
def test_who_is_handed_nonsense_leaves(damage, space, tmp_path, quick, listener):
    with hold_folder(tmp_path), shared(OnePerson(), tmp_path, space, print) as pool:

        def deal():
            while not pool._guests:
                pool._look()
                time.sleep(0.01)
            (next(iter(pool._guests)) / "todo-999.json").write_text(damage)

        dealer = threading.Thread(target=deal)
        dealer.start()
        with pytest.raises(InputError, match="must be an architecture"):
            help_out(tmp_path, pool.token, Table(), WorkersConfig(pool="local"), space, listener)
        dealer.join(10)
        pool._look()
        assert not pool._guests


def test_nobody_is_waited_for_where_nobody_leads(tmp_path):
    assert wait_for_leader(tmp_path, Listener()) is None
    (tmp_path / ".lock").touch()
    assert wait_for_leader(tmp_path, Listener()) is None


def test_ctrl_c_hands_over_what_is_being_scored_and_leaves(space, tmp_path, quick, listener):
    class Interrupting(Table):
        def score_together(self, architectures, split="validation"):
            os.kill(os.getpid(), signal.SIGINT)
            yield from map(evaluation, architectures)

    with hold_folder(tmp_path):
        pool = SharedPool(OnePerson(), tmp_path, space, print)
        pool.open()
        for architecture in some(space, 3):
            pool._queue.append((architecture, "validation"))
        pool._pool.waiting.append(None)  # nobody is free here

        def deal():
            while not pool._guests:
                pool._look()
                time.sleep(0.01)
            pool._deal()

        dealer = threading.Thread(target=deal)
        dealer.start()
        listener.start("shared", 3, {})
        with pytest.raises(KeyboardInterrupt):
            help_out(tmp_path, pool.token, Interrupting(), WorkersConfig(pool="local"), space, listener)
        dealer.join(10)
        pool._look()
        assert len(pool._results) == 1
        assert not pool._guests
        assert len(pool._queue) == 2


def test_who_is_to_end_begins_nothing_and_is_not_blamed_for_it(space, tmp_path, listener):
    """What it has not begun stays ``todo``: who leads hands that to others, and suspects nothing of it."""
    for number, architecture in enumerate(some(space, 2)):
        write_message(tmp_path / f"todo-{number}.json", {"genes": architecture.genes, "split": "validation"})
    pool = DrainedPool(OnePerson())
    pool.end()
    with pytest.raises(KeyboardInterrupt):
        _work(tmp_path, tmp_path, pool, space, listener)
    assert {path.name for path in tmp_path.iterdir()} == {"todo-0.json", "todo-1.json"}


def test_what_is_answered_is_begun_no_more(space, tmp_path):
    (tmp_path / "doing-3.json").touch()
    _answer(tmp_path, 3, evaluation(some(space, 1)[0]))
    assert {path.name for path in tmp_path.iterdir()} == {"done-3.json"}


def test_a_run_that_nobody_leads_is_led_and_one_that_is_led_is_refused_without_join(tmp_path):
    recipe = write_run(tmp_path)
    run = nas.search(recipe, tmp_path / "run", join=True)
    assert len(run.evaluations()) == 24
    with (
        hold_folder(prepare(load_recipe(recipe), tmp_path / "run", None, {}).folder),
        pytest.raises(HeldError, match=f"share its search with `nas search --join` .process {os.getpid()}"),
    ):
        nas.search(recipe, tmp_path / "run")


def test_a_supernet_that_is_trained_is_opened_without_a_store(finished, job_of_source):
    source, job = job_of_source
    again = source.trained_job(finished.folder)
    assert again.weights.keys() == job.weights.keys()
    assert all((again.weights[name] == array).all() for name, array in job.weights.items())


@pytest.fixture
def job_of_source(finished, recipe):
    source = prepare(recipe, finished.folder, None, {}).source
    from nas.scoring import build_job

    return source, build_job(finished.config, finished.data, finished.supernet())


def test_a_supernet_that_is_not_trained_is_refused(recipe, tmp_path):
    source = prepare(recipe, tmp_path / "run", None, {}).source
    with pytest.raises(InputError, match="must be trained to its end"):
        source.trained_job(tmp_path / "run")
