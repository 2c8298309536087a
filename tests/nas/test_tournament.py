"""Tournaments: less violation wins, then less loss, and coins come from the generator that is passed in."""

import numpy as np
import pytest
from pymoo.core.population import Population

from nas.tournament import by_feasibility, by_niche, winners


def population(CV, **attributes):
    pop = Population.new(X=np.zeros((len(CV), 1)))
    for individual, violation in zip(pop, CV, strict=True):
        individual.CV = np.array([violation])
    for name, values in attributes.items():
        for individual, value in zip(pop, values, strict=True):
            individual.set(name, value)
    return pop


def test_the_first_loss_that_differs_decides():
    pairs = np.array([[0, 1], [1, 0], [2, 3]])
    losses = [np.array([[1.0, 2.0], [1.0, 1.0], [np.nan, 1.0]]), np.array([[9.0, 0.0], [3.0, 2.0], [0.0, 1.0]])]
    assert winners(pairs, losses, np.random.default_rng(0)).ravel().tolist() == [0, 0, 2]


def test_coins_are_fair_and_follow_their_generator():
    pairs = np.tile([[0, 1]], (2000, 1))
    first, again, other = (winners(pairs, [], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert 900 < first.sum() < 1100


def test_the_less_violating_one_wins():
    pop = population([0.0, 1.0, 3.0])
    P = np.array([[0, 1], [2, 1], [2, 0]])
    assert by_feasibility(pop, P, random_state=np.random.default_rng(0)).ravel().tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_in_one_niche_rank_and_then_distance_decide(seed):
    pop = population([0, 0, 0, 1], niche=[0, 0, 0, None], rank=[1, 0, 0, None], dist_to_niche=[0, 2, 1, None])
    P = np.array([[0, 1], [1, 2], [3, 0]])
    assert by_niche(pop, P, random_state=np.random.default_rng(seed)).ravel().tolist() == [1, 2, 0]


def test_between_niches_a_coin_decides():
    pop = population([0, 0], niche=[0, 1], rank=[0, 5], dist_to_niche=[0, 1])
    won = by_niche(pop, np.tile([[0, 1]], (500, 1)), random_state=np.random.default_rng(0))
    assert 150 < won.sum() < 350
