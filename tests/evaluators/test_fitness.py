"""F_AEB in both forms, by hand and in its sense."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import EVALUATORS, Candidate, dense_operations, estimate_energy_mj
from evaluators.fitness import FORMS, AccuracyEnergyBalance, balance
from spaces import InputError

ACCURACIES = st.floats(0.01, 1.0)
ENERGIES = st.floats(1e-6, 1e3)
EXPONENTS = st.floats(0.01, 2.0)


@pytest.mark.parametrize(
    ("accuracy", "relative_energy", "exponent", "form", "expected"),
    [
        (0.8, 4.0, 0.5, "product", 0.4),
        (0.8, 0.25, 0.5, "product", 1.6),
        (0.9, 1.0, 0.08, "product", 0.9),
        (0.8, 4.0, 0.1, "sum", 0.4),
        (0.8, 0.5, 0.2, "sum", 0.7),
        (0.6, 123.0, 0.0, "product", 0.6),
        (0.6, 123.0, 0.0, "sum", 0.6),
    ],
)
def test_balance_by_hand(accuracy, relative_energy, exponent, form, expected):
    assert balance(accuracy, relative_energy, exponent, form) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=50)
@given(accuracy=ACCURACIES, better=st.floats(1.01, 2.0), energy=ENERGIES, exponent=EXPONENTS)
def test_balance_rises_with_accuracy_and_falls_with_energy(form, accuracy, better, energy, exponent):
    value = balance(accuracy, energy, exponent, form)
    assert balance(accuracy * better, energy, exponent, form) >= value
    assert balance(accuracy, energy * better, exponent, form) < value


@pytest.mark.parametrize("form", FORMS)
def test_fitness_of_a_candidate_is_the_balance_of_its_accuracy_and_energy(form, space, supernet, images):
    candidate = Candidate(space.largest(), supernet, images)
    accuracy = EVALUATORS["accuracy"]()(candidate)["accuracy"]
    energy = EVALUATORS["energy_mj"]()(candidate)["energy_mj"]
    assert accuracy > 0
    fitness = AccuracyEnergyBalance(exponent=0.3, form=form, reference_mj=0.002)(candidate)["f_aeb"]
    by_hand = accuracy * (energy / 0.002) ** -0.3 if form == "product" else accuracy - 0.3 * energy / 0.002
    assert fitness == pytest.approx(by_hand, rel=1e-12)


def test_default_reference_is_the_estimate_for_the_largest_architecture(space, supernet, images):
    candidate = Candidate(space.smallest(), supernet, images)
    reference = estimate_energy_mj(dense_operations(space.skeleton, space.largest()))
    default = AccuracyEnergyBalance(form="sum")(candidate)
    assert default == AccuracyEnergyBalance(form="sum", reference_mj=reference)(candidate)
    assert default != AccuracyEnergyBalance(form="sum", reference_mj=2 * reference)(candidate)


def test_reference_changes_no_ranking_of_the_product(space, supernet, images):
    candidates = [Candidate(architecture, supernet, images) for architecture in (space.smallest(), space.largest())]
    low, high = (
        [AccuracyEnergyBalance(reference_mj=reference)(c)["f_aeb"] for c in candidates] for reference in (1e-5, 10.0)
    )
    assert (low[0] < low[1]) == (high[0] < high[1])
    assert low[0] / low[1] == pytest.approx(high[0] / high[1])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"form": "difference"}, r"f_aeb form must be one of \['product', 'sum'\], got 'difference'"),
        ({"exponent": -0.1}, "f_aeb exponent must be 0 or more, got -0.1"),
        ({"exponent": math.inf}, "f_aeb exponent must be 0 or more, got inf"),
        ({"exponent": math.nan}, "f_aeb exponent must be 0 or more, got nan"),
        ({"reference_mj": 0.0}, "f_aeb reference_mj must be above 0, got 0.0"),
        ({"reference_mj": -1.0}, "f_aeb reference_mj must be above 0, got -1.0"),
        ({"reference_mj": math.nan}, "f_aeb reference_mj must be above 0, got nan"),
        ({"exponent": "high"}, "f_aeb exponent must be .*, got 'high'"),
        ({"exponent": None}, "f_aeb exponent must be .*, got None"),
        ({"reference_mj": "small"}, "f_aeb reference_mj must be .*, got 'small'"),
        ({"form": ["sum"]}, r"f_aeb form must be one of \['product', 'sum'\], got \['sum'\]"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_with_rule_and_fact(options, text):
    with pytest.raises(InputError, match=text):
        AccuracyEnergyBalance(**options)
