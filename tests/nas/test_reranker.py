"""What a reranker picks of many candidates, what it learns from, and when it stands aside."""

import moocore
import numpy as np
import pytest
import torch
from fakes import drawn, problem_of, toy_metrics
from pymoo.core.population import Population

from nas import rerank
from nas.picking import Picks, pick_by_band, pick_by_volume
from nas.problem import ArchitectureProblem
from nas.ranker import Ranker
from nas.rerank import Ranked, Reranker, _recent
from nas.scoring import threads
from spaces import load_space


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def told(problem, architectures, metrics):
    X = np.array([problem.space.encode(each) for each in architectures])
    return problem.fill(Population.new(X=X), metrics)


def test_it_stands_aside_while_it_cannot_tell_the_order(rng):
    """Results without any order make it stand aside, ones with it bring it back; aside, it takes what comes first."""
    space = load_space("digits")
    problem, left, chance = problem_of(space), drawn(space, 400), np.random.default_rng(5)
    reranker, firsts, sizes = Reranker(problem, 4), [], []

    def noise(_):
        return {"accuracy": chance.random(), "energy_mj": chance.random()}

    reranker.learn(told(problem, left[:12], [noise(each) for each in left[:12]]))
    left = left[12:]
    for answer, batches in ((noise, 5), (toy_metrics, 20)):
        for _ in range(batches):
            sizes.append(reranker.batch(20))
            picked = [left[row] for row in reranker.pick(left[:40], 10, rng)]
            firsts.append(picked == left[:10])
            reranker.learn(told(problem, picked, [answer(each) for each in picked]))
            left = [each for each in left if each not in picked]
    aside = [batch.aside for batch in reranker.trace]
    assert aside == firsts
    assert all(size == 20 or not stood for size, stood in zip(sizes, aside, strict=True))
    assert min(sizes) == 10
    assert aside[:6] == [False, True, True, True, True, True]
    assert aside[-3:] == [False, False, False]
    assert [batch.scored for batch in reranker.trace] == list(range(12, 262, 10))
    taus = np.array([batch.tau for batch in reranker.trace])
    assert abs(taus[:5].mean()) < 0.2
    assert taus[-3:].mean() > 0.3
    log = reranker.log()
    assert log[3] == {"scored": 42, "batch": 10, "tau": taus[3], "aside": True}


def test_what_it_is_trusted_by_is_the_mean_over_the_last_architectures():
    """Batches count by their size, the last ones that have 50 together; nine are too few, and some compare none."""
    nothing = Ranked(0, 100, float("nan"), False)
    assert _recent([]) == _recent([nothing]) == _recent([Ranked(0, 9, -1.0, False)]) == np.inf
    trace = [Ranked(0, 10, -1.0, False), Ranked(0, 45, 0.2, False), nothing, Ranked(0, 5, 0.6, False), nothing]
    assert _recent(trace) == pytest.approx((45 * 0.2 + 5 * 0.6) / 50)
    assert _recent(trace[:2]) == pytest.approx((45 * 0.2 - 10 * 1.0) / 55)
    assert _recent(trace[:1]) == -1


def test_what_it_has_not_picked_says_nothing_of_whether_it_can_tell():
    """As the first proposals of an asynchronous search, of which many come after its first picks."""
    problem, left = problem_of(load_space("digits")), drawn(load_space("digits"), 200)
    reranker = Reranker(problem, 4)
    reranker.learn(told(problem, left[:20], [toy_metrics(each) for each in left[:20]]))
    picked = [left[40 + row] for row in reranker.pick(left[40:], 3, np.random.default_rng(0))]
    late = left[20:40]
    reranker.learn(told(problem, late, [toy_metrics(each) for each in late]))
    assert reranker.trace == []
    answers = sorted((toy_metrics(each) for each in picked), key=lambda metrics: metrics["accuracy"])
    reranker.learn(told(problem, picked, answers[::-1]))
    assert [(batch.scored, batch.batch) for batch in reranker.trace] == [(40, 3)]
    assert not reranker._aside


def test_a_batch_grows_with_what_is_known_unless_it_cannot_rank(rng):
    problem = problem_of(load_space("digits"))
    every = drawn(problem.space, 400)

    def sizes(known, **options):
        reranker = Reranker(problem, 4, **options)
        reranker.learn(told(problem, every[:known], [toy_metrics(each) for each in every[:known]]))
        return [reranker.batch(generation) for generation in (1, 5, 20, 100)]

    assert sizes(9) == [1, 5, 20, 100]
    assert sizes(10) == sizes(63) == [1, 3, 10, 50]
    assert sizes(191) == [1, 5, 11, 50]
    assert sizes(400) == [1, 5, 20, 50]
    assert sizes(20, whole=True) == [1, 5, 20, 100]
    reranker = Reranker(problem, 4)
    reranker.learn(told(problem, every[:20], [None] * 20))
    assert reranker.batch(20) == 20


def test_what_is_being_scored_counts_as_it_is_expected_to_be(rng, monkeypatch):
    """It fills gaps, so that nothing is picked for them again; it is never learnt from before it has results."""
    problem = problem_of(load_space("digits"))
    every = drawn(problem.space, 200)
    seen, fits, fit = [], [], Ranker.fit

    def noting(picks, F, known, box, count, rng):
        seen.append((F, known))
        pick_by_volume(picks, F, known, box, count, rng)

    def counted(ranker, scored, rng):
        fits.append(len(scored.X))
        fit(ranker, scored, rng)

    monkeypatch.setattr("nas.rerank.pick_by_volume", noting)
    monkeypatch.setattr(Ranker, "fit", counted)
    reranker = Reranker(problem, 4)
    reranker.learn(told(problem, every[:60], [toy_metrics(each) for each in every[:60]]))
    first = reranker.pick(every[60:], 8, rng)
    F, known = seen[-1]
    assert len(known) == 60
    reranker.expect(Population.new(X=np.array([problem.space.encode(every[60 + row]) for row in first])))
    again = [each for row, each in enumerate(every[60:]) if row not in first]
    reranker.pick(again, 8, rng)
    assert seen[-1][1][60:] == pytest.approx(F[first])
    assert fits == [60]  # there was nothing new to learn


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

        def noted(picks, F, known, box, count, rng, asked=asked, volume=volume):
            asked.append((box.worst.tolist(), count))
            volume(picks, F, known, box, count, rng)

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


@pytest.mark.parametrize(
    ("trust", "tau", "number"),
    [(1.0, 0.5, 20), (1.0, 0.9, 20), (1.0, 0.25, 10), (0.5, 0.9, 1), (0.8, 0.5, 8), (0.8, 0.25, 4), (0.0, 0.9, 0)],
)
def test_as_many_are_picked_by_volume_as_values_tell(trust, tau, number, monkeypatch):
    """Of 20: the fourth power of the trust, and in proportion to a tau below one half; the rest by bands."""
    monkeypatch.setattr(rerank, "EXPLORED", 0.0)
    monkeypatch.setattr(Ranker, "of_values", lambda *_: (trust, tau))
    asked, by_volume, by_band = {}, [], pick_by_band

    def noted(picks, scores, cost, rows, count, rng):
        asked["bands"] = count
        by_band(picks, scores, cost, rows, count, rng)

    def counted(*args):
        by_volume.append(args[4])
        pick_by_volume(*args)

    monkeypatch.setattr(rerank, "pick_by_volume", counted)
    monkeypatch.setattr(rerank, "pick_by_band", noted)
    pool = drawn(load_space("digits"), 160)
    reranker = Reranker(problem_of(load_space("digits")), 5)
    reranker.learn(told(problem_of(load_space("digits")), pool[:60], [toy_metrics(each) for each in pool[:60]]))
    assert len(reranker.pick(pool[60:], 20, np.random.default_rng(3))) == 20
    assert (sum(by_volume), asked["bands"]) == (number, 20 - number)


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
