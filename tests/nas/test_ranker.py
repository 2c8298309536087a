"""What a reranker learns with: encoding, Gaussian process, networks, and the ensemble of them."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import kendalltau
from threadpoolctl import threadpool_limits

from nas.encoding import Encoding
from nas.gaussian import GaussianProcess
from nas.rank_nets import RankNets
from nas.ranker import ObjectiveRanker, Ranker, Scored, agreement, bands, normal_scores
from nas.scoring import threads
from nas.value_process import ValueProcess
from spaces import TableSpace, load_space
from spaces.rows import Column


@pytest.fixture(autouse=True)
def one_thread():
    """As in a search."""
    with threadpool_limits(1), threads(1):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def table():
    """All rows of two ordered genes and one unordered one, 4 · 5 · 3."""
    columns = [
        Column("depth", (1, 2, 4, 8), True),
        Column("width", (1, 2, 3, 4, 5), True),
        Column("kind", ("a", "b", "c"), False),
    ]
    return TableSpace("toy", columns, np.array([(i, j, k) for i in range(4) for j in range(5) for k in range(3)]))


def test_distances_of_codes_are_those_of_genes(table):
    rows = list(table)
    codes, indices = Encoding(table)(rows), np.array([table.encode(row) for row in rows])
    apart = ((codes[:, None] - codes) ** 2).sum(axis=2)
    by_gene = np.abs(indices[:, None] - indices)
    expected = by_gene[..., 0] / 3 + by_gene[..., 1] / 4 + (by_gene[..., 2] > 0)
    np.testing.assert_allclose(apart, expected, atol=1e-12)


def test_genes_of_the_same_choices_share_a_sum():
    """Three edges that choose among the same operations, two sizes that do not, and two genes without a choice."""
    columns = [
        *(Column(f"edge_{number}", ("a", "b"), False) for number in range(3)),
        *(Column(f"size_{number}", (1, 2), True) for number in range(2)),
        *(Column(f"fixed_{number}", (1,), True) for number in range(3)),
    ]
    rows = [(0, 0, 1, 0, 1, 0, 0, 0), (1, 0, 1, 0, 1, 0, 0, 0), (1, 1, 1, 0, 1, 0, 0, 0)]
    encoding = Encoding(TableSpace("toy", columns, np.array(rows)))
    codes = encoding(list(encoding._space))
    by_key = {tuple(row): code for row, code in zip(map(encoding._space.encode, encoding._space), codes, strict=True)}
    sums = {row: code[encoding.genes == len(columns)] for row, code in by_key.items()}
    twice, once, never = (sums[row] * np.sqrt(2 * 3) for row in rows)
    np.testing.assert_allclose(twice, [2, 1])
    np.testing.assert_allclose(once, [1, 2])
    np.testing.assert_allclose(never, [0, 3])
    assert encoding.genes.max() == len(columns)


def test_sums_are_of_one_gene_of_each_layer_and_of_what_is_active(rng):
    """Depth has the choices of the ratios here and is none of them; layers that are not there add nothing."""
    space = load_space("grey28")
    encoding, first = Encoding(space), len(space.columns)
    assert space.choices("depth") == space.choices("mlp_ratio_0")
    alike = [[f"{gene}_{layer}" for layer in range(3)] for gene in ("mlp_ratio", "num_heads", "v_threshold", "tau")]
    assert encoding.genes.max() == first + len(alike) - 1
    for architecture in [space.smallest(), *(space.sample(rng) for _ in range(5))]:
        (code,) = encoding([architecture])
        for number, names in enumerate(alike):
            parts = [code[encoding.genes == list(space.columns).index(name)] for name in names]
            np.testing.assert_allclose(code[encoding.genes == first + number], sum(parts) / 3**0.5)


def test_a_few_results_tell_of_a_sum_what_they_cannot_of_each_gene(rng):
    """Sixteen layers that count alike: twenty networks tell the order of the others."""
    columns = [Column(f"layer_{number}", (1, 2, 3, 4), True) for number in range(16)]
    rows = rng.integers(4, size=(300, 16))
    encoding = Encoding(TableSpace("toy", columns, rows))
    rows = np.array([encoding._space.encode(row) for row in encoding._space])
    X, y = encoding(list(encoding._space)), rows.sum(axis=1).astype(float)
    order = rng.permutation(len(X))
    found = []
    for known in (np.ones(len(encoding.genes), dtype=bool), encoding.genes < 16):
        process, Z = GaussianProcess(encoding.genes[known]), X[order][:, known]
        process.tune(Z[:20], y[order[:20]], rng)
        process.fit(Z[:20], y[order[:20]])
        found.append(kendalltau(process.predict(Z[20:]), y[order[20:]]).statistic)
    assert found[0] > 0.9
    assert found[1] < 0.8


def test_inactive_genes_leave_nothing_in_a_code(rng):
    space = load_space("auto-spikformer")
    encoding = Encoding(space)
    for architecture in [space.smallest(), *(space.sample(rng) for _ in range(5))]:
        (code,) = encoding([architecture])
        inactive = ~space.active(space.encode(architecture))
        own = encoding.genes < len(inactive)
        assert code.shape == (encoding.width,)
        assert not code[own][inactive[encoding.genes[own]]].any()
    assert (~space.active(space.encode(space.smallest()))).any()


def test_the_gradient_of_the_scales_is_right(table, rng):
    encoding = Encoding(table)
    process, X = GaussianProcess(encoding.genes), encoding(list(table)[::2])
    t = rng.normal(size=len(X))
    at = process._scales + rng.normal(size=len(process._scales)) * 0.3
    loss = [lambda s, i=i: process._loss(s, X, t, X.mean(axis=0))[i] for i in range(2)]
    assert check_grad(*loss, at) < 1e-4 * np.linalg.norm(loss[1](at))


def test_left_out_predictions_are_those_of_a_process_without_the_value(table, rng):
    encoding = Encoding(table)
    X = encoding(list(table)[::3])
    y = X[:, 0] + X[:, 5] + 0.1 * rng.normal(size=len(X))
    y = (y - y.mean()) / y.std()
    process = GaussianProcess(encoding.genes)
    process.tune(X, y, rng)
    process.fit(X, y)
    K = process._kernel(X) + (np.exp(process._scales[-2]) + 1e-6) * np.eye(len(X))
    for row, left_out in list(enumerate(process.left_out()))[::5]:
        rest = np.delete(np.arange(len(X)), row)
        expected = K[row, rest] @ np.linalg.solve(K[np.ix_(rest, rest)], y[rest])
        assert left_out == pytest.approx(expected, abs=1e-8)


def test_a_process_finds_out_which_gene_matters(table, rng):
    encoding, rows = Encoding(table), list(table)
    X, y = encoding(rows), np.array([float(row.genes["width"] ** 2) for row in rows])
    seen = rng.permutation(len(rows))[:30]
    process = GaussianProcess(encoding.genes)
    before = process._scales.copy()
    process.tune(X[seen], y[seen], rng)
    process.fit(X[seen], y[seen])
    np.testing.assert_allclose(process.predict(X), y, atol=1.0)
    change = (process._scales - before)[:3]
    assert change.argmax() == 1


def ordered(rng, n=240, width=12):
    X = (rng.random((n, width)) < 0.5).astype(float)
    cost = X[:, 0] + 0.1 * rng.random(n)
    y = X @ np.linspace(1, 3, width) + X[:, 1] * X[:, 2]
    return X, y.round(6), cost


def test_networks_learn_an_order_and_tell_how_well(rng):
    X, y, cost = ordered(rng)
    seen = np.arange(160)
    groups = [*bands(cost[seen]), seen]
    nets = RankNets(X.shape[1])
    nets.fit(X[seen], y[seen], groups, np.random.default_rng(1))
    held_out = kendalltau(nets.predict(X[160:]), y[160:]).statistic
    assert held_out > 0.7
    assert 0.6 < kendalltau(nets.left_out(X[seen]), y[seen]).statistic < 1.0
    again = RankNets(X.shape[1])
    again.fit(X[seen], y[seen], groups, np.random.default_rng(1))
    np.testing.assert_array_equal(nets.predict(X), again.predict(X))
    apart = RankNets(X.shape[1])
    apart.fit(X[seen], np.exp(3 * y[seen]), groups, np.random.default_rng(1))
    np.testing.assert_array_equal(nets.predict(X), apart.predict(X))  # nothing but the order counts


def test_what_a_network_left_out_did_not_teach_it(rng):
    """Noise can be learnt by heart, and is by the networks that saw it, but not foretold."""
    X = rng.normal(size=(60, 40))
    y, nets = rng.normal(size=60), RankNets(40)
    nets.fit(X, y, [np.arange(60)], rng)
    assert kendalltau(nets.predict(X), y).statistic > 0.6
    assert abs(kendalltau(nets.left_out(X), y).statistic) < 0.3


def test_failures_and_violations_rank_last_whatever_their_values():
    F = np.array([[3.0], [1.0], [0.0], [-9.0], [2.0]])
    scored = Scored(np.zeros((5, 1)), F, np.array([0.0, 0.0, 2.0, 0.3, 0.0]))
    assert scored.ranks[:, 0].tolist() == [3, 1, 5, 4, 2]
    assert scored.sound.tolist() == [True, True, False, False, True]
    none_sound = Scored(np.zeros((2, 1)), np.zeros((2, 1)), np.array([2.0, 1.0]))
    assert none_sound.ranks[:, 0].tolist() == [2, 1]


def test_normal_scores_are_quantiles():
    np.testing.assert_allclose(normal_scores(np.array([2.0, 1.0, 3.0])), [0, -0.967422, 0.967422], atol=1e-6)


def test_bands_are_equally_full_and_one_where_all_cost_the_same(rng):
    cost = rng.random(64)
    found = bands(cost)
    assert [len(band) for band in found] == [16] * 4
    assert all(cost[low].max() < cost[high].min() for low, high in pairwise(found))
    assert [band.tolist() for band in bands(np.ones(40))] == [list(range(40))]


def test_agreement_is_a_mean_over_groups_that_have_an_order():
    ranks = np.array([1.0, 2, 3, 1, 2, 3, 5, 5])
    groups = [np.array([0, 1, 2]), np.array([3, 4, 5]), np.array([6, 7])]
    assert agreement(np.array([1.0, 2, 3, 3, 2, 1, 0, 1]), ranks, groups) == 0
    assert agreement(np.array([1.0, 2, 3, 4, 5, 6, 0, 1]), ranks, groups) == 1
    assert agreement(np.zeros(8), ranks, groups) == 0


OWN = 57
"""Entries of a code that are of single genes; those of their sums follow."""


@pytest.fixture
def encoded(rng):
    space = load_space("auto-spikformer")
    encoding = Encoding(space)
    assert (encoding.genes[:OWN] < len(space.columns)).all()
    assert (encoding.genes[OWN:] >= len(space.columns)).all()
    return encoding, encoding(list({space.sample(rng) for _ in range(300)}))


def objectives(X, rng, corrupted=0.0):
    X = X[:, :OWN]
    quality = X @ np.sin(np.arange(X.shape[1])) + 0.5 * X[:, 3] * X[:, 8]
    cost = 3 * X.sum(axis=1) + X[:, 0]
    bad = rng.random(len(X)) < corrupted
    return np.column_stack([quality + bad * rng.uniform(5, 30, len(X)), cost])


def test_an_ensemble_tells_the_order_of_what_it_has_not_seen(encoded, rng):
    encoding, X = encoded
    F = objectives(X, rng)
    F[:, 0] += 0.3 * rng.normal(size=len(F))
    ranker = Ranker(encoding, 2, None)
    ranker.fit(Scored(X[:120], F[:120], np.zeros(120)), rng)
    scores, spread = ranker.predict(X[120:])
    for k in range(2):
        assert kendalltau(scores[:, k], F[120:, k]).statistic > 0.75
    assert ranker.cost == 1  # the better known one
    assert (spread >= 0).all()


def test_values_are_trusted_unless_some_of_them_are_wrong(encoded, rng):
    encoding, X = encoded
    trusts, taus = [], []
    for share in (0.0, 0.1):
        F = objectives(X, rng, share)
        ranker = Ranker(encoding, 2, None)
        ranker.fit(Scored(X[:200], F[:200], np.zeros(200)), rng)
        trust, tau = ranker.of_values(np.array([0]))
        trusts.append(trust)
        assert 0 < tau <= 1
        taus.append(kendalltau(ranker.predict(X[200:])[0][:, 0], objectives(X, rng)[200:, 0]).statistic)
    assert trusts[0] > 0.95
    assert trusts[1] < 0.9
    assert min(taus) > 0.35


def test_a_few_wrong_values_are_not_believed(encoded, rng):
    encoding, X = encoded
    F, wrong = objectives(X, rng), np.arange(200) % 10 == 3
    F[:200][wrong, 0] += 20
    ranker = Ranker(encoding, 2, None)
    ranker.fit(Scored(X[:200], F[:200], np.zeros(200)), rng)
    believed = ranker._objectives[0]._by_value.chosen._credible
    assert wrong[believed].sum() <= 3
    assert len(believed) >= 170
    assert kendalltau(ranker.predict(X[200:])[0][:, 0], F[200:, 0]).statistic > 0.8


@pytest.mark.parametrize(("form", "shape"), [("values", lambda t: 5 + t), ("logarithms", lambda t: np.exp(2 * t))])
def test_logarithms_are_learnt_from_where_genes_multiply(form, shape, encoded, rng):
    encoding, X = encoded
    F, t = objectives(X, rng), X[:, :OWN] @ np.linspace(0.5, 3, OWN)
    F[:, 1] = shape((t - t.mean()) / t.std())
    ranker = Ranker(encoding, 2, None)
    ranker.fit(Scored(X[:60], F[:60], np.zeros(60)), rng)
    assert ranker._objectives[1]._by_value.chosen.form == form
    assert kendalltau(ranker.predict(X[60:])[0][:, 1], F[60:, 1]).statistic > 0.85


@pytest.mark.parametrize(
    ("behind", "n", "weight"),
    [(0.0, 30, 0.5), (0.05, 30, 0.2506), (0.05, 120, 0.1006), (0.05, 270, 0.0), (0.3, 30, 0.0)],
)
def test_members_count_by_how_far_they_are_behind_the_best(behind, n, weight, encoded, rng, monkeypatch):
    """Values whose tau is so far behind that of ranks, which more results tell more surely."""
    encoding, X = encoded
    F = objectives(X, rng)
    ranker = ObjectiveRanker(encoding)
    monkeypatch.setattr("nas.ranker.ENOUGH", 10**6)
    monkeypatch.setattr(ValueProcess, "fit", lambda *_: (0.5 - behind, 0.5 - behind))
    monkeypatch.setattr("nas.ranker.agreement", lambda *_: 0.5)
    scored = Scored(X[:n], F[:n], np.zeros(n))
    ranker.fit_ranks(scored, scored.ranks[:, 0], np.arange(n), rng)
    ranker.fit(scored, 0, scored.ranks[:, 0], scored.ranks[:, 1], np.arange(n), rng)
    assert ranker._weights.sum() == pytest.approx(1)
    assert ranker._weights[1] == pytest.approx(weight, abs=0.002)


def test_networks_count_like_processes_that_tell_as_much(encoded, rng, monkeypatch):
    """By what they tell of those that they have not learnt from, among which are all results since."""
    encoding, X = encoded
    F, told = objectives(X, rng), []
    ranker = ObjectiveRanker(encoding)

    def agreed(expected, *_):
        told.append(expected)
        return 0.5

    monkeypatch.setattr("nas.ranker.agreement", agreed)
    for n in (80, 84):
        scored = Scored(X[:n], F[:n], np.zeros(n))
        ranker.fit_ranks(scored, scored.ranks[:, 0], np.arange(n), rng)
        ranker.fit(scored, 0, scored.ranks[:, 0], scored.ranks[:, 1], np.arange(n), rng)
        np.testing.assert_allclose(ranker._weights, 1 / 3)
    np.testing.assert_array_equal(told[-1][:80], ranker._nets.left_out(X[:80]))
    np.testing.assert_array_equal(told[-1][80:], ranker._nets.predict(X[80:84]))


@pytest.mark.parametrize("shift", [-1e6, 0.0])
def test_values_of_both_signs_and_zeros_have_no_logarithms(shift, encoded, rng):
    encoding, X = encoded
    F = objectives(X, rng)
    F[:, 1] = np.where(np.arange(len(X)) % 2, shift, F[:, 1])
    ranker = Ranker(encoding, 2, None)
    ranker.fit(Scored(X[:40], F[:40], np.zeros(40)), rng)
    assert ranker._objectives[1]._by_value.chosen.form == "values"
    assert np.isfinite(ranker.predict(X[40:])[0]).all()


def test_failures_teach_the_rank_and_no_value(encoded, rng):
    """What fails has one choice in common; that choice is expected to be bad, however good its values look."""
    encoding, X = encoded
    F, failing = objectives(X, rng), X[:, 3] > 0
    F[failing] = -100.0
    ranker = Ranker(encoding, 2, None)
    ranker.fit(Scored(X[:200], F[:200], 2.0 * failing[:200]), rng)
    scores = ranker.predict(X[200:])[0][:, 0]
    rest = failing[200:]
    assert 10 < rest.sum() < 90
    assert np.median(scores[rest]) > np.quantile(scores[~rest], 0.75)


def test_a_given_cost_makes_the_bands(encoded, rng):
    encoding, _ = encoded
    ranker = Ranker(encoding, 3, 0)
    ranks = rng.random((5, 3))
    assert ranker.cost == 0
    np.testing.assert_array_equal(ranker.costs(ranks, 2), ranks[:, 0])
    np.testing.assert_array_equal(ranker.costs(ranks, 0), ranks[:, 1])
    assert not Ranker(encoding, 1, None).costs(ranks[:, :1], 0).any()


@pytest.mark.parametrize("n", [20, 450])
def test_learning_is_the_same_again(encoded, n, rng):
    encoding, X = encoded
    X = np.vstack([X, X])[:n]
    scored = Scored(X, objectives(X, np.random.default_rng(1)), np.zeros(n))
    found = []
    for _ in range(2):
        ranker = Ranker(encoding, 2, None)
        ranker.fit(scored, np.random.default_rng(3))
        found.append(ranker.predict(X[:50])[0])
    np.testing.assert_array_equal(*found)
