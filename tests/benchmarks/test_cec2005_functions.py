"""CEC 2005 functions against the official test vectors, plain loops over the definitions, and their optima."""

import math

import numpy as np
import pytest
from cec2005_functions import NUMBERS, ROTATED, CecProblem, build_function, data_file, load_data

pytestmark = pytest.mark.skipif(data_file() is None, reason="SPIKEFRONT_DATA has no cec2005/cec2005_f1_f14.npz")


@pytest.fixture(scope="module")
def data():
    return load_data()


def points(function, count=6):
    return np.random.default_rng(function.number).uniform(*function.bounds, (count, len(function.optimum)))


@pytest.mark.parametrize("number", [1, 3, 6, 7, 9, 10, 11, 13])
def test_official_test_vectors_are_reproduced(number, data):
    x, expected = data[f"F{number}_test_x"], data[f"F{number}_test_f"]
    assert x.shape == (10, 50)
    np.testing.assert_allclose(build_function(number, 50, data).evaluate(x), expected, rtol=1e-9)


@pytest.mark.parametrize("n_var", [2, 10, 30, 50])
@pytest.mark.parametrize("number", NUMBERS)
def test_the_value_at_the_optimum_is_the_bias_and_the_optimum_is_in_the_box(number, n_var, data):
    function = build_function(number, n_var, data)
    assert function.evaluate(function.optimum[None]).item() == pytest.approx(function.bias, abs=1e-9)
    assert ((function.optimum >= function.bounds[0]) & (function.optimum <= function.bounds[1])).all()
    assert (function.evaluate(points(function)) > function.bias).all()


def rotated(x, o, M):
    """Return (x - o) M by loops."""
    return [sum((x[k] - o[k]) * M[k][j] for k in range(len(x))) for j in range(len(x))]


def loop_f2(x, data):
    o, total, running = data["F2_o"], 0.0, 0.0
    for i in range(len(x)):
        running += x[i] - o[i]
        total += running**2
    return total - 450


def loop_f5(x, data):
    D, A = len(x), data["F5_A"]
    o = []
    for i in range(1, D + 1):  # counted from 1, as in the definition
        if i >= math.floor(0.75 * D):  # in two dimensions this overlaps with the other rule
            o.append(100.0)
        elif i <= math.ceil(D / 4):
            o.append(-100.0)
        else:
            o.append(data["F5_o"][i - 1])
    rows = [abs(sum(A[i][j] * x[j] for j in range(D)) - sum(A[i][j] * o[j] for j in range(D))) for i in range(D)]
    return max(rows) - 310


def loop_f8(x, data):
    D = len(x)
    o = [-32.0 if i % 2 == 1 else data["F8_o"][i - 1] for i in range(1, D + 1)]
    z = rotated(x, o, data[f"F8_M{D}"])
    squares, waves = sum(v * v for v in z), sum(math.cos(2 * math.pi * v) for v in z)
    return -20 * math.exp(-0.2 * math.sqrt(squares / D)) - math.exp(waves / D) + 20 + math.e - 140


def loop_f12(x, data):
    D, a, b, alpha, total = len(x), data["F12_a"], data["F12_b"], data["F12_alpha"], 0.0
    for i in range(D):
        A = sum(a[i][j] * math.sin(alpha[j]) + b[i][j] * math.cos(alpha[j]) for j in range(D))
        B = sum(a[i][j] * math.sin(x[j]) + b[i][j] * math.cos(x[j]) for j in range(D))
        total += (A - B) ** 2
    return total - 460


def loop_f14(x, data):
    D, total = len(x), 0.0
    z = rotated(x, data["F14_o"], data[f"F14_M{D}"])
    for i in range(D):
        r = z[i] ** 2 + z[(i + 1) % D] ** 2
        total += 0.5 + (math.sin(math.sqrt(r)) ** 2 - 0.5) / (1 + 0.001 * r) ** 2
    return total - 300


LOOPS = {2: loop_f2, 4: loop_f2, 5: loop_f5, 8: loop_f8, 12: loop_f12, 14: loop_f14}


@pytest.mark.parametrize("n_var", [2, 10, 30, 50])
@pytest.mark.parametrize("number", LOOPS)
def test_functions_without_official_values_are_plain_loops_over_their_definitions(number, n_var, data):
    function = build_function(number, n_var, data)
    x = points(function)
    expected = [LOOPS[number](row, data) for row in x]
    np.testing.assert_allclose(function.evaluate(x), expected, rtol=1e-9)


def test_noise_lifts_f4_as_its_definition_says_and_comes_from_its_generator(data):
    quiet = build_function(4, 30, data)
    x = np.repeat(points(quiet, 1), 20_000, axis=0)
    lifted = build_function(4, 30, data, np.random.default_rng(1)).evaluate(x)
    factor = (lifted + 450) / (quiet.evaluate(x[:1]) + 450)
    assert factor.min() >= 1
    assert factor.mean() == pytest.approx(1 + 0.4 * math.sqrt(2 / math.pi), abs=0.01)
    np.testing.assert_array_equal(build_function(4, 30, data, np.random.default_rng(1)).evaluate(x), lifted)


@pytest.mark.parametrize("number", NUMBERS)
def test_values_of_a_point_do_not_depend_on_its_neighbours(number, data):
    function = build_function(number, 10, data)
    x = points(function)
    one_by_one = np.concatenate([function.evaluate(row[None]) for row in x])
    np.testing.assert_allclose(function.evaluate(x), one_by_one, rtol=1e-12)


def test_a_problem_is_the_error_in_the_box(data):
    function = build_function(7, 10, data)
    problem = CecProblem(function)
    x = points(function)
    np.testing.assert_allclose(problem.evaluate(x)[:, 0], function.evaluate(x) + 180)
    assert (problem.xl == -600).all()
    assert (function.start[0] == 0).all()
    assert (problem.xu == function.start[1]).all()


def test_rotated_functions_are_not_separable_and_the_others_are_as_defined(data):
    separable = set()
    for number in set(NUMBERS):
        function = build_function(number, 10, data)
        base, a, b = (function.optimum.copy() for _ in range(3))
        a[2] += 0.3
        b[7] += 0.3
        both = a + b - base
        values = function.evaluate(np.stack([base, a, b, both])) - function.bias
        if math.isclose(values[3], values[1] + values[2], rel_tol=1e-9):
            separable.add(number)
    assert separable & ROTATED == set()
    assert {1, 9} <= separable
