"""What a driver could not write, and where it belongs once another driver has gone on with its run."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from fakes import OBJECTIVES, FakePool, evaluation, half_failing
from test_asynchronous import VirtualPool
from test_durable import Kept, fill, reopened, table

from nas.algorithms import build_algorithm
from nas.asynchronous import Conversation, run_asynchronous
from nas.durable import PENDING
from nas.evaluation import Evaluation
from nas.loop import Quest, run_search
from nas.problem import ArchitectureProblem
from nas.restoring import reconcile
from nas.soundness import MODE, sound_trials
from nas.stopping import SECONDS
from nas.storage import Write
from spaces import InputError


class KilledError(Exception):
    pass


def searched(store, space, pool, listen=lambda _: None, budget=60, asynchronous=True):
    problem = ArchitectureProblem(space, OBJECTIVES)
    algorithm = build_algorithm("nsga2", problem, 10, 3, budget, expand=1)
    quest = Quest(problem, pool, store, budget, on_evaluation=listen)
    if asynchronous:
        conversation = Conversation(problem, algorithm, 10, 1, {})
        return run_asynchronous(quest, conversation)
    return run_search(quest, algorithm)


def stop_after(results, act=lambda: None):
    def listen(_):
        results[0] -= 1
        if results[0] == 0:
            raise KilledError
        if results[0] == results[1]:
            act()

    return listen


def pool(seed, asynchronous):
    return VirtualPool(4, seed) if asynchronous else FakePool(half_failing, np.random.default_rng(seed))


@pytest.mark.parametrize("asynchronous", [True, False], ids=["async", "generational"])
@pytest.mark.parametrize("others", [1, 9, 30])
@pytest.mark.parametrize("written", [5, 23])
def test_a_driver_that_was_replaced_while_its_store_was_away_spoils_nothing(
    written, others, asynchronous, tmp_path, space
):
    """One loses its store and is killed; another goes on, for so many results; then the folder of the first does."""
    first = Kept(tmp_path, space)
    lose = stop_after([written + 12, 12], lambda: setattr(first.line, "cut", True))
    with pytest.raises(KilledError):
        searched(first.store, space, pool(0, asynchronous), lose, asynchronous=asynchronous)
    assert (tmp_path / PENDING).exists()
    second = reopened(tmp_path, space)
    known = len(second.known)
    with pytest.raises(KilledError):
        searched(second, space, pool(1, asynchronous), stop_after([known + others, -1]), asynchronous=asynchronous)
    again = Kept(tmp_path, space)
    again.backlog.restore({"search": again.store})
    assert len(again.store.known) >= known + others
    third = reopened(tmp_path, space)
    assert (third.results, third.told, third.proposals) == (
        again.store.results,
        again.store.told,
        again.store.proposals,
    )
    assert searched(third, space, pool(2, asynchronous), asynchronous=asynchronous).evaluations == 60
    assert third.opened == len(third.known) == 60
    if asynchronous:
        assert len(third.told) == len(third.proposals) == 60
        assert sorted(third._told.values()) == list(range(60))
    sound_trials(again.backlog._storage, "search", space, list(OBJECTIVES))
    (line,) = again.said
    assert line.startswith("wrote ")
    assert asynchronous == ("are dropped, as another driver has led the run since" in line)


def test_nothing_is_dropped_where_nobody_else_was_at_work(tmp_path, space):
    first = Kept(tmp_path, space)
    with pytest.raises(KilledError):
        searched(first.store, space, VirtualPool(4), stop_after([30, 12], lambda: setattr(first.line, "cut", True)))
    again = Kept(tmp_path, space)
    again.backlog.restore({"search": again.store})
    assert again.store.told == first.store.told
    assert again.store.proposals == first.store.proposals
    assert "dropped" not in again.said[0]


@pytest.fixture
def store(tmp_path, space):
    return reopened(tmp_path, space)


def opening(architecture, after):
    return Write("search", "open", {"generation": 1, "after": after}, architecture)


def closing(architecture, told):
    result = evaluation(architecture)
    return Write("search", "close", {**result.metrics, "duration": 0.5, "told": told}, architecture)


def fitting(store, writes):
    kept, dropped = reconcile([(store, write) for write in writes])
    return [write for _, write in kept], dropped


def test_a_result_whose_architecture_is_closed_is_dropped_with_what_followed_from_it(store, space):
    one, two, three, four = list(space)[:4]
    for architecture in (one, two):
        store.open(architecture, 1, after=0)
    store.close(evaluation(two), told=0)
    writes = [
        closing(one, 0),
        opening(three, 1),
        closing(three, 1),
        closing(two, 2),
        Write("search", "note", {SECONDS: 3}),
    ]
    kept, dropped = fitting(store, writes)
    assert kept == [closing(one, 1)], "it is as if its worker had handed it in now"
    assert dropped == 4
    assert fitting(store, [opening(one, 0), closing(two, 0), opening(four, 1)]) == ([opening(four, 1)], 0)


def test_another_failure_of_what_is_closed_tells_of_another_driver(store, space):
    one, two = list(space)[:2]
    store.open(one, 1)
    store.close(evaluation(one))
    failed = Write("search", "close", {"failure": "late", "duration": 1.0}, one)
    assert fitting(store, [failed, Write("search", "open", {"generation": 2}, two)]) == ([], 2)
    assert store.known[one] == Evaluation(one, evaluation(one).metrics, 0.5)


def test_a_run_stays_as_it_was_begun(store):
    store.study.set_user_attr(MODE, "generational")
    store.study.set_user_attr(SECONDS, 2.0)
    time = Write("search", "note", {SECONDS: 5.0})
    assert fitting(store, [Write("search", "note", {MODE: "async"}), time]) == ([], 2)
    same = [Write("search", "note", {MODE: "generational"}), time]
    assert fitting(store, same) == (same, 0)


# The file


@pytest.mark.parametrize("allowed", [False, True])
def test_a_file_that_cannot_be_removed_is_emptied_or_named(space, tmp_path, monkeypatch, allowed):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    kept, architectures = Kept(tmp_path, space), list(space)[:8]
    kept.line.cut = True
    fill(kept.store, architectures)
    kept.line.cut = False
    monkeypatch.setattr(Path, "unlink", refuse)
    if not allowed:
        monkeypatch.setattr(os, "truncate", refuse)
    again = Kept(tmp_path, space)
    with contextlib.nullcontext() if allowed else pytest.raises(InputError, match=r"pending\.jsonl must be removed"):
        again.backlog.restore({"search": again.store})
    assert table(reopened(tmp_path, space)) == table(kept.store)
    with kept.backlog:
        kept.backlog.settle()
    assert len(kept.backlog) == 0
    assert any("cannot be removed" in line for line in kept.said) != allowed
    if allowed:
        assert (tmp_path / PENDING).read_bytes() == b""


def test_a_line_that_could_be_neither_finished_nor_cut_is_cut_before_the_next_one(space, tmp_path):
    kept, architectures = Kept(tmp_path, space), list(space)[:8]
    kept.line.cut = True
    fill(kept.store, architectures[:2])
    with (tmp_path / PENDING).open("ab") as file:
        file.write(b'{"study": "search", "do": "clo')
    fill(kept.store, architectures[2:])
    again = Kept(tmp_path, space)
    again.backlog.restore({"search": again.store})
    assert table(again.store) == table(kept.store) == table(reopened(tmp_path, space))
