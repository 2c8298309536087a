"""The store: one Optuna trial per evaluation, readable by Optuna itself, and reopened without loss."""

import sqlite3

import optuna
import pytest
from fakes import OBJECTIVES, evaluation, toy_metrics
from optuna.trial import TrialState

from nas.backend import open_storage
from nas.evaluation import Evaluation
from nas.folder import STORE
from nas.storage import Store, read_architecture, read_evaluation, read_trials
from spaces import InputError


@pytest.fixture
def store(tmp_path, space):
    return Store(open_storage(tmp_path), "search", space, OBJECTIVES)


@pytest.fixture
def architectures(space):
    return [space.smallest(), space.largest(), *list(space.neighbours(space.largest()))[:4]]


def reopened(tmp_path, space, name="search"):
    return Store(open_storage(tmp_path), name, space, OBJECTIVES)


def trials(tmp_path, name="search"):
    return read_trials(open_storage(tmp_path), name)


def test_a_trial_is_opened_running_and_closed_complete(store, tmp_path, space):
    architecture = space.largest()
    store.open(architecture, 3)
    (running,) = trials(tmp_path)
    assert running.state == TrialState.RUNNING
    assert running.user_attrs == {"key": architecture.key, "generation": 3}
    store.close(Evaluation(architecture, {"accuracy": 0.5, "energy_mj": 2e-5, "spikes": 7.0}, 1.25))
    (closed,) = trials(tmp_path)
    assert (closed.number, closed.state, closed.values) == (running.number, TrialState.COMPLETE, [0.5, 2e-5])
    assert closed.user_attrs == {
        "key": architecture.key,
        "generation": 3,
        "accuracy": 0.5,
        "energy_mj": 2e-5,
        "spikes": 7.0,
        "duration": 1.25,
    }
    assert closed.datetime_start <= closed.datetime_complete


def test_a_failure_is_a_failed_trial_with_its_reason(store, tmp_path, space):
    store.open(space.smallest(), 1)
    store.close(Evaluation(space.smallest(), {}, 0.5, "ValueError: too small"))
    (trial,) = trials(tmp_path)
    assert (trial.state, trial.values) == (TrialState.FAIL, None)
    assert trial.user_attrs["failure"] == "ValueError: too small"
    assert read_evaluation(trial, space) == Evaluation(space.smallest(), {}, 0.5, "ValueError: too small")


def test_genes_of_layers_that_do_not_exist_are_no_parameters(store, tmp_path, space):
    shallow = next(a for a in space if a.depth == 1)
    deep = next(a for a in space if a.depth == 2)
    for architecture in (shallow, deep):
        store.open(architecture, 1)
    first, second = trials(tmp_path)
    assert first.params == shallow.genes
    assert second.params == deep.genes
    assert not any(name.endswith("_1") for name in first.params)
    assert {f"{gene}_1" for gene in ("mlp_ratio", "num_heads", "v_threshold", "tau")} < set(second.params)


def test_trials_name_their_architectures(store, tmp_path, space, architectures):
    for architecture in architectures:
        store.open(architecture, 1)
    assert [read_architecture(trial, space) for trial in trials(tmp_path)] == architectures
    assert len({read_architecture(trial, space).key for trial in trials(tmp_path)}) == len(architectures)


def test_optuna_itself_sees_directions_metric_names_parameters_and_values(store, tmp_path, space, architectures):
    for architecture in architectures:
        store.open(architecture, 1)
        store.close(evaluation(architecture))
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / STORE}")
    assert study.directions == [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]
    assert study.metric_names == ["accuracy", "energy_mj"]
    assert [trial.params for trial in study.trials] == [architecture.genes for architecture in architectures]
    assert [trial.values for trial in study.trials] == [list(toy_metrics(a).values()) for a in architectures]
    assert [trial.number for trial in study.trials] == list(range(len(architectures)))
    assert study.best_trials
    distribution = study.trials[0].distributions["embed_dim"]
    assert distribution.choices == (8, 16)


def test_optuna_directions_follow_the_order_of_the_objectives(tmp_path, space):
    Store(open_storage(tmp_path), "search", space, {"energy_mj": "min", "accuracy": "max"})
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path / STORE}")
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["energy_mj", "accuracy"]


def test_a_running_trial_left_by_a_crash_is_used_again(store, tmp_path, space, architectures):
    for architecture in architectures[:3]:
        store.open(architecture, 1)
    store.close(evaluation(architectures[1]))
    again = reopened(tmp_path, space)
    assert again.known == {architectures[1]: evaluation(architectures[1])}
    for architecture in architectures:
        again.open(architecture, 1)
    again.close(evaluation(architectures[0]))
    rows = trials(tmp_path)
    assert [read_architecture(trial, space) for trial in rows] == architectures
    assert [trial.number for trial in rows] == list(range(len(architectures)))
    states = [trial.state.name for trial in rows]
    assert states == ["COMPLETE", "COMPLETE", "RUNNING", "RUNNING", "RUNNING", "RUNNING"]


def test_what_is_read_back_is_what_was_recorded(store, tmp_path, space, architectures):
    recorded = [evaluation(architecture) for architecture in architectures[:-1]]
    recorded.append(Evaluation(architectures[-1], {}, 0.0, "OSError: line one\nline two"))
    for result in recorded:
        store.open(result.architecture, 1)
        store.close(result)
    assert reopened(tmp_path, space).results == recorded


def test_results_come_in_the_order_of_submission_not_of_arrival(store, tmp_path, space, architectures):
    for architecture in architectures:
        store.open(architecture, 1)
    for architecture in reversed(architectures[1:]):
        store.close(evaluation(architecture))
    expected = [evaluation(architecture) for architecture in architectures[1:]]
    assert store.results == expected
    assert reopened(tmp_path, space).results == expected


def test_a_closed_trial_stays_as_it_is(store, tmp_path, space):
    architecture = space.smallest()
    store.open(architecture, 1)
    store.close(evaluation(architecture))
    before = trials(tmp_path)
    store.open(architecture, 2)
    store.close(Evaluation(architecture, {"accuracy": 1.0, "energy_mj": 0.0}, 9.0))
    assert trials(tmp_path) == before
    assert store.known == {architecture: evaluation(architecture)}


def test_studies_of_one_file_do_not_mix(store, tmp_path, space):
    other = reopened(tmp_path, space, "random")
    for each, architecture in ((store, space.smallest()), (other, space.largest())):
        each.open(architecture, 1)
        each.close(evaluation(architecture))
    assert list(reopened(tmp_path, space).known) == [space.smallest()]
    assert list(reopened(tmp_path, space, "random").known) == [space.largest()]
    assert trials(tmp_path, "nothing") == []


def test_a_crash_between_metrics_and_state_leaves_no_half_result(store, tmp_path, space):
    """Metrics are written one by one; until the state changes, the evaluation has not happened."""
    architecture = space.smallest()
    store.open(architecture, 1)
    storage = open_storage(tmp_path)
    storage.backend.set_trial_user_attr(trials(tmp_path)[0]._trial_id, "accuracy", 0.99)
    again = reopened(tmp_path, space)
    assert again.known == {}
    again.open(architecture, 1)
    again.close(evaluation(architecture))
    (trial,) = trials(tmp_path)
    assert read_evaluation(trial, space) == evaluation(architecture)


def damage(path, how):
    whole = path.read_bytes()
    if how == "text":
        path.write_text("this is no database")
    elif how == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "one page":
        path.write_bytes(whole[:4096])
    elif how == "all pages but the first":
        path.write_bytes(whole[:4096] + b"\xab" * (len(whole) - 4096))
    elif how == "trials":
        with sqlite3.connect(path) as connection:
            root = connection.execute("select rootpage from sqlite_master where name = 'trials'").fetchone()[0]
        connection.close()
        start = (root - 1) * 4096
        path.write_bytes(whole[:start] + b"\xab" * 4096 + whole[start + 4096 :])
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "another database":
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("create table version_info (something text)")
        connection.close()


DAMAGES = ["text", "truncated", "one page", "all pages but the first", "trials", "folder", "another database"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_store_is_refused_and_left_as_it_is(how, store, tmp_path, space, architectures):
    for architecture in architectures:
        store.open(architecture, 1)
        store.close(evaluation(architecture))
    path = tmp_path / STORE
    damage(path, how)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(InputError, match=r"study\.db must be the store of a run, but: .+; choose another run folder"):
        reopened(tmp_path, space)
    if how != "another database":  # Optuna adds its tables before it looks at what else there is
        assert (path.read_bytes() if path.is_file() else None) == before


def test_a_store_in_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be the store of a run"):
        open_storage(tmp_path / "nowhere")
