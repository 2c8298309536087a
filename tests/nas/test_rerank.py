"""Expand and rerank: what is picked of many candidates, by whom, and when the reranker stands aside."""

import moocore
import numpy as np
import pytest
import torch
from fakes import (
    OBJECTIVES,
    evaluation,
    half_failing,
    installed,
    narrowed,
    proposals,
    some_objectives,
    three_metrics,
    toy_metrics,
)
from pymoo.core.population import Population

from nas import rerank
from nas.algorithms import build_algorithm, parse_algorithm
from nas.constraints import parse_constraints
from nas.evaluation import Evaluation
from nas.picking import Picks, pick_by_band, pick_by_volume
from nas.problem import ArchitectureProblem
from nas.ranker import Ranker
from nas.rerank import Reranker
from nas.results import hypervolume
from nas.scoring import threads
from spaces import InputError, TableSpace, load_space
from spaces.rows import Column

RERANKED = [name for name in installed() if name != "random"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# Picking


def test_a_candidate_is_picked_once_and_an_owner_takes_one(rng):
    picks = Picks(np.array([0, 0, 1, 2]))
    for _ in range(5):
        picks.take_least(np.array([1.0, 0.0, 3.0, 2.0]))
    assert picks.taken == [1, 3, 2]
    assert not picks.free.any()
    picks = Picks(np.arange(4))
    picks.take_least(np.array([1.0, 0.0, 3.0, 2.0]), np.array([2, 3]))
    assert picks.taken == [3]


def test_picks_by_volume_are_on_the_front_and_all_along_it(rng):
    angle = np.linspace(0.02, np.pi / 2 - 0.02, 30)
    front = 1 - np.column_stack([np.cos(angle), np.sin(angle)])
    F = np.vstack([front, front + 0.2, [[5.0, 5.0]]])
    picks = Picks(np.arange(len(F)))
    pick_by_volume(picks, F, np.array([1.0, 1.0]), np.array([0.0, 0.0]), 12, rng)
    assert len(picks.taken) == 12
    assert max(picks.taken) < 30
    assert np.ptp(picks.taken) > 20


def test_picks_by_volume_do_not_care_about_units(rng):
    F = rng.random((40, 3))
    scale, shift = np.array([1e-6, 1.0, 1e9]), np.array([3.0, 0.0, -7.0])
    found = []
    for a, b in ((np.ones(3), np.zeros(3)), (scale, shift)):
        picks = Picks(np.arange(40))
        pick_by_volume(picks, F * a + b, a * 1.0 + b, a * 0.0 + b, 10, np.random.default_rng(1))
        found.append(picks.taken)
    assert found[0] == found[1]


def test_picks_by_band_are_the_best_of_each(rng):
    cost = np.arange(60) / 60
    scores = np.column_stack([rng.random(60) + 2 * cost, cost])  # no conflict between the two
    picks = Picks(np.arange(60))
    pick_by_band(picks, scores, 1, np.arange(60), 6, rng)
    assert [row // 10 for row in picks.taken] == list(range(6))
    assert picks.taken == [int(np.argmin(scores[10 * b : 10 * b + 10, 0])) + 10 * b for b in range(6)]


def test_picks_by_band_are_not_the_dearest_where_objectives_contradict_each_other(rng):
    cost = np.arange(60) / 60
    quality = -cost + 0.01 * rng.random(60)
    special = [4, 13, 22, 35, 44, 51]
    quality[special] -= 0.05
    picks = Picks(np.arange(60))
    pick_by_band(picks, np.column_stack([quality, cost]), 1, np.arange(60), 6, rng)
    assert sorted(picks.taken) == special


# In a search


@pytest.mark.parametrize("name", RERANKED)
@pytest.mark.parametrize("answer", [evaluation, half_failing], ids=["sound", "half failing"])
def test_nothing_is_proposed_twice_and_a_seed_decides_all(name, answer, space):
    """In a space of 288, so that the last batches are what is left."""
    generations, algorithm = proposals(name, space, 60, seed=4, answer=answer, expand=3)
    architectures = [each for generation in generations for each in generation]
    assert len(architectures) == len(set(architectures)) >= 60
    assert algorithm.reranker.trace
    again, _ = proposals(name, space, 60, seed=4, answer=answer, expand=3)
    assert generations == again


@pytest.mark.parametrize("name", RERANKED)
def test_three_objectives_constraints_failures_and_a_small_space(name, space):
    """The last population is larger than what is left of the space: it ends with the last architecture."""
    space = narrowed(space, tau=[2.0])

    def some_failing(architecture):
        failure = "RuntimeError: low key" if int(architecture.key, 16) % 10 < 3 else None
        metrics = {} if failure else three_metrics(architecture)
        return Evaluation(architecture, metrics, 0.1, failure)

    energies = [toy_metrics(each)["energy_mj"] for each in space]
    constraints = parse_constraints({"max_energy_mj": float(np.median(energies))}, ["energy_mj"])
    generations, _ = proposals(name, space, 1000, 30, 1, some_failing, some_objectives(3), constraints, expand=2)
    assert sum(map(len, generations)) == space.size
    assert {each for generation in generations for each in generation} == set(space)


@pytest.mark.parametrize("name", RERANKED)
def test_reranking_goes_on_where_nothing_works(name, space):
    """All fail: there is nothing to learn from, and the algorithm goes on by itself."""

    def failing(architecture):
        return Evaluation(architecture, {}, 0.1, "RuntimeError: always")

    generations, algorithm = proposals(name, space, 40, answer=failing, expand=3)
    architectures = [each for generation in generations for each in generation]
    assert len(architectures) == len(set(architectures)) >= 40
    assert algorithm.reranker.trace == []


@pytest.mark.parametrize("population", [2, 3])
@pytest.mark.parametrize("name", ["nsga2", "mo-qpso"])
def test_batches_can_be_tiny(name, population, space):
    generations, algorithm = proposals(name, space, 40, population=population, expand=5)
    assert max(map(len, generations)) == population
    assert min(map(len, generations)) == population or name == "mo-qpso"  # a particle may find nothing and stay
    assert algorithm.reranker.trace


def test_random_search_has_no_reranker(space):
    one, algorithm = proposals("random", space, 40, expand=20)
    other, _ = proposals("random", space, 40, expand=1)
    assert one == other
    assert algorithm.reranker is None
    assert proposals("nsga2", space, 10, expand=1)[1].reranker is None


def reached(seed, expand):
    """Return the hypervolume of all that NSGA-II found on the toy objectives."""
    space = load_space("auto-spikformer")
    generations, _ = proposals("nsga2", space, 100, population=20, seed=seed, expand=expand)
    points = np.array([list(toy_metrics(each).values()) for generation in generations for each in generation])
    return hypervolume(points, OBJECTIVES, {"accuracy": 0.0, "energy_mj": toy_metrics(space.largest())["energy_mj"]})


def test_reranking_finds_a_better_front_in_as_many_evaluations():
    with_it, without = (np.array([reached(seed, expand) for seed in range(3)]) for expand in (20, 1))
    assert with_it.mean() > 1.07 * without.mean()


def problem_of(space, **options):
    return ArchitectureProblem(space, OBJECTIVES, **options)


def told(problem, architectures, metrics):
    X = np.array([problem.space.encode(each) for each in architectures])
    return problem.fill(Population.new(X=X), metrics)


def drawn(space, count, seed=0):
    rng = np.random.default_rng(seed)
    return list({space.sample(rng): None for _ in range(3 * count)})[:count]


def test_it_stands_aside_while_it_cannot_tell_the_order(rng):
    """Results without any order make it stand aside, ones with it bring it back; aside, it takes what comes first."""
    space = load_space("digits")
    problem, left, chance = problem_of(space), drawn(space, 400), np.random.default_rng(5)
    reranker, firsts = Reranker(problem, 4), []

    def noise(_):
        return {"accuracy": chance.random(), "energy_mj": chance.random()}

    reranker.learn(told(problem, left[:12], [noise(each) for each in left[:12]]))
    left = left[12:]
    for answer, batches in ((noise, 5), (toy_metrics, 20)):
        for _ in range(batches):
            picked = [left[row] for row in reranker.pick(left[:40], 10, rng)]
            firsts.append(picked == left[:10])
            reranker.learn(told(problem, picked, [answer(each) for each in picked]))
            left = [each for each in left if each not in picked]
    aside = [batch.aside for batch in reranker.trace]
    assert aside == firsts
    assert aside[:6] == [False, True, True, True, True, True]
    assert aside[-3:] == [False, False, False]
    assert [batch.scored for batch in reranker.trace] == list(range(12, 262, 10))
    taus = np.array([batch.tau for batch in reranker.trace])
    assert abs(taus[:5].mean()) < 0.2
    assert taus[-3:].mean() > 0.3
    log = reranker.log()
    assert log[3] == {"scored": 42, "batch": 10, "tau": taus[3], "aside": True}


def test_most_of_a_batch_is_what_is_expected_to_be_best_and_a_part_is_not(rng, monkeypatch):
    space = load_space("digits")
    problem, pool = problem_of(space), drawn(load_space("digits"), 260)
    known = told(problem, pool[:60], [toy_metrics(each) for each in pool[:60]])
    counts = []
    for explored in (0.0, rerank.EXPLORED):
        monkeypatch.setattr(rerank, "EXPLORED", explored)
        reranker = Reranker(problem, 10)
        reranker.learn(known)
        picked = reranker.pick(pool[60:], 20, np.random.default_rng(3))
        assert len(set(picked)) == 20
        counts.append(set(picked))
    assert len(counts[0] - counts[1]) in range(1, 12)
    values = np.array([list(toy_metrics(each).values()) for each in pool[60:]]) * [-1, 1]
    dominated = np.array([(values < point).all(axis=1).sum() for point in values])
    assert np.median(dominated[list(counts[0])]) < np.median(dominated) / 3


def test_the_reference_of_the_hypervolume_widens_what_half_of_the_volume_picks_reach(monkeypatch):
    """Learnt from cheap architectures only, it would never pick what is dearer than all of them."""
    monkeypatch.setattr(rerank, "EXPLORED", 0.0)
    space = load_space("digits")
    pool = sorted(drawn(space, 260), key=lambda each: toy_metrics(each)["energy_mj"])
    cheap, others = pool[:130:2], pool[1:130:2] + pool[130:]
    limit = max(toy_metrics(each)["energy_mj"] for each in cheap)
    dearer, parts = {}, {}
    for name, reference in {"none": None, "wide": {"accuracy": 0.0, "energy_mj": 10 * limit}}.items():
        asked, volume = [], pick_by_volume

        def noted(picks, F, reference, best, count, rng, asked=asked, volume=volume):
            asked.append((reference.tolist(), count))
            volume(picks, F, reference, best, count, rng)

        monkeypatch.setattr(rerank, "pick_by_volume", noted)
        problem = problem_of(space, reference=reference)
        reranker = Reranker(problem, 20)
        reranker.learn(told(problem, cheap, [toy_metrics(each) for each in cheap]))
        picked = reranker.pick(others, 20, np.random.default_rng(3))
        dearer[name] = sum(toy_metrics(others[row])["energy_mj"] > limit for row in picked)
        parts[name] = asked
    (first, few), (second, more) = parts["wide"]
    assert second == [0.0, 10 * limit]
    assert parts["none"] == [(first, few), (first, more)]
    assert few in (more, more - 1)
    assert dearer["wide"] > max(dearer["none"], 2)


def test_ranking_takes_one_thread_whatever_the_process_has(rng, monkeypatch):
    """Their number changes the last bits of sums, and one bit another pick."""
    problem, pool, seen = problem_of(load_space("digits")), drawn(load_space("digits"), 60), []
    reranker, fit = Reranker(problem, 4), Ranker.fit
    monkeypatch.setattr(Ranker, "fit", lambda *given: seen.append(torch.get_num_threads()) or fit(*given))
    reranker.learn(told(problem, pool[:40], [toy_metrics(each) for each in pool[:40]]))
    with threads(2):
        reranker.pick(pool[40:], 5, rng)
        assert torch.get_num_threads() == 2
    assert seen == [1]


def test_of_more_candidates_than_mating_proposes_the_dominated_are_left_out(rng):
    space = load_space("digits")
    problem, pool = problem_of(space), drawn(space, 260)
    reranker = Reranker(problem, 4)
    reranker.learn(told(problem, pool[:60], [toy_metrics(each) for each in pool[:60]]))
    picks = Picks(np.arange(200))
    layer = moocore.pareto_rank(reranker._pick(picks, pool[60:], 10, rng))
    assert len(picks.taken) == 10
    assert layer[picks.taken].max() <= np.sort(layer)[4 * 10 // 2 - 1] < np.quantile(layer, 0.25)


def test_static_objectives_are_computed_and_not_predicted(space):
    asked = []

    class Static:
        names = ("energy_mj",)

        def __call__(self, architecture):
            asked.append(architecture)
            return {"energy_mj": toy_metrics(architecture)["energy_mj"]}

    problem = problem_of(space, static=Static())
    pool = drawn(space, 120)
    values, computed = problem.foretell(pool[:3])
    assert computed.tolist() == [False, True]
    np.testing.assert_allclose(values[:, 1], [toy_metrics(each)["energy_mj"] for each in pool[:3]])
    assert np.isnan(values[:, 0]).all()
    reranker = Reranker(problem, 4)
    reranker.learn(told(problem, pool[:40], [toy_metrics(each) for each in pool[:40]]))
    # Whatever energies the candidates had, nothing of them is learnt: the bands are of what is computed.
    expected = reranker._pick(Picks(np.arange(80)), pool[40:], 10, np.random.default_rng(0))[:, 1]
    assert set(pool[40:]) <= set(asked)
    energies = np.array([toy_metrics(each)["energy_mj"] for each in pool[40:]])
    order = np.argsort(energies)
    assert (np.diff(expected[order]) >= 0).all()
    assert reranker._ranker.cost == 1
    assert list(reranker._ranker._objectives) == [0]  # nobody learns what is computed


def test_rows_of_a_table_are_candidates_themselves(rng):
    """Of 20,000 combinations a table lists 400, so mating alone would hardly ever name a row."""
    columns = [Column(f"g{i}", tuple(range(5)), True) for i in range(6)]
    rows = np.unique(rng.integers(5, size=(400, 6)), axis=0)
    space = TableSpace("some", columns, rows)

    def answer(row):
        genes = list(row.genes.values())
        metrics = {"accuracy": float(sum(genes)), "energy_mj": float(genes[0] ** 2 + genes[1])}
        return Evaluation(row, metrics, 0.0)

    generations, algorithm = proposals("nsga2", space, 60, population=10, answer=answer, expand=4)
    found = [each for generation in generations for each in generation]
    assert len(set(found)) == 60
    sizes = []
    pick = algorithm.reranker.pick
    algorithm.reranker.pick = lambda candidates, *rest: sizes.append(len(candidates)) or pick(candidates, *rest)
    algorithm.ask()
    assert sizes[0] > 300


@pytest.mark.parametrize("text", ["nsga2@0", "nsga2@", "nsga2@x", "nsga2@-3", "nsga2@1001", "nsga2@1.5"])
def test_an_expansion_is_a_whole_number(text):
    with pytest.raises(InputError, match="NAME or NAME@EXPAND with EXPAND from 1 to 1000"):
        parse_algorithm(text, 20)


def test_an_algorithm_is_called_by_name_and_expansion():
    assert parse_algorithm("nsga2", 7) == ("nsga2", 7)
    assert parse_algorithm("mo-qpso@3", 7) == ("mo-qpso", 3)


def test_reranking_begins_with_what_a_warm_start_takes(space):
    known = [evaluation(each) for each in drawn(space, 60)]
    algorithm = build_algorithm("nsga2", problem_of(space), 10, 0, 100, known, expand=4)
    algorithm.tell(infills=algorithm.problem.fill(algorithm.ask(), [known[0].metrics] * 10))
    algorithm.ask()
    assert len(algorithm.reranker._results) >= 60


def test_the_order_of_one_objective_is_compared_with_all_results_and_not_with_the_first(rng):
    """The first twenty are known to be the worst, and nothing else has an order; that is no reason to trust it."""
    space, chance = load_space("digits"), np.random.default_rng(5)
    problem, everything = ArchitectureProblem(space, {"accuracy": "max"}), drawn(space, 600)
    least = min(each.embed_dim for each in everything)
    worst = [each for each in everything if each.embed_dim == least][:20]
    left = [each for each in everything if each.embed_dim > least]
    reranker = Reranker(problem, 4)
    reranker.learn(told(problem, worst, [{"accuracy": 0.0}] * 20))
    reranker.learn(told(problem, left[:180], [{"accuracy": 1 + chance.random()} for _ in range(180)]))
    left = left[180:]
    for _ in range(4):
        picked = [left[row] for row in reranker.pick(left[:40], 10, rng)]
        reranker.learn(told(problem, picked, [{"accuracy": 1 + chance.random()} for _ in picked]))
        left = [each for each in left if each not in picked]
    assert np.mean([batch.tau for batch in reranker.trace]) < 0.2
    reranker.pick(left[:40], 10, rng)
    assert reranker._aside


class Told:
    """A ranker that says what it is told to of all that it knows, and of what it ranks."""

    def __init__(self, known, asked):
        self.known, self.asked, self.cost = known, asked, None

    def fit(self, scored, rng):
        self.count = len(scored.X)

    def predict(self, Z):
        return np.full((len(Z), 1), self.asked), np.zeros((len(Z), 1))

    def left_out(self):
        return np.full((self.count, 1), self.known)

    def costs(self, ranks, objective):
        return np.zeros(len(ranks))


def test_what_was_expected_is_judged_by_the_model_that_expected_it(rng):
    """What a search proposes while results are to come is picked by other models than what it tells then."""
    space = load_space("digits")
    problem, (first, second, *known) = ArchitectureProblem(space, {"accuracy": "max"}), drawn(space, 30)
    reranker = Reranker(problem, 4)
    reranker.learn(told(problem, known[:14], [{"accuracy": 0.1 + n / 100} for n in range(14)]))
    reranker._ranker = Told(known=1.0, asked=0.0)  # it is better than all
    assert reranker.pick([first], 1, rng) == [0]
    reranker.learn(told(problem, known[14:], [{"accuracy": 0.3 + n / 100} for n in range(14)]))
    reranker._ranker = Told(known=0.0, asked=1.0)  # it is worse than all
    assert reranker.pick([second], 1, rng) == [0]
    reranker.learn(told(problem, [first], [{"accuracy": 0.9}]))
    reranker.learn(told(problem, [second], [{"accuracy": 0.01}]))
    taus = [batch.tau for batch in reranker.trace if np.isfinite(batch.tau)]
    assert taus == [1.0, 1.0]


@pytest.mark.parametrize("name", ["qpso", "mo-qpso"])
def test_every_particle_of_a_reranked_swarm_goes_on_as_long_as_something_is_left(name, space):
    problem = problem_of(space)
    algorithm = build_algorithm(name, problem, 20, 3, 280, expand=8)
    for _ in range(space.size // 20):
        asked = algorithm.ask()
        assert len(asked) == 20
        metrics = [toy_metrics(space.decode(x)) for x in asked.get("X")]
        algorithm.tell(infills=algorithm.problem.fill(asked, metrics))
    assert len(algorithm.ask()) == space.size % 20
