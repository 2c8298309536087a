"""Equations as C: what depends on no neuron stays a scalar, and functions of constants are computed once."""

import math

import pytest
import torch

from supernet.neurons import Equations, fire, native, sigmoid_step
from supernet.neurons.equations import loop_body
from supernet.neurons.expressions import exp, gradients, record, sigmoid, symbol, tanh, to_c

needs_compiler = pytest.mark.skipif(native.problem() is not None, reason=str(native.problem()))


def test_products_of_constants_are_scalars_and_everything_else_is_not():
    k, x = symbol("k_a"), symbol("x_")
    lines = to_c({"u": x * (1 - k * k), "v": k + 2.0}, "f").splitlines()
    assert lines == [
        "const scalar f0 = k_a * k_a;",
        "const scalar f1 = NUMBER(1.0) - f0;",
        "const real f2 = x_ * f1;",
        "const scalar f3 = k_a + NUMBER(2.0);",
        "const real u = f2;",
        "const real v = SPLAT(f3);",
    ]


@pytest.mark.parametrize(("function", "expected"), [(exp, math.exp), (tanh, math.tanh)])
def test_functions_take_constants_of_a_call_too(function, expected):
    assert function(0.3) == pytest.approx(expected(0.3), rel=1e-15)
    assert sigmoid(0.3) == pytest.approx(1 / (1 + math.exp(-0.3)), rel=1e-15)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_function_of_a_constant_compiles_and_gives_the_spikes_of_plain_torch(dtype):
    equations = Equations(
        charge=lambda x, state, const: state.v * exp(-const.rate) + x * (1 - tanh(const.rate)),
        reset=lambda u, s, x, state, const: (u * (1 - s) + sigmoid(const.rate) * 0,),
        surrogate=sigmoid_step,
        constants=("v_threshold", "rate"),
    )
    constants = {"v_threshold": 0.7, "rate": 0.4}
    x = torch.randn(5, 300, generator=torch.Generator().manual_seed(0), dtype=dtype)
    compiled, plain = (fire(x, equations, constants, executor) for executor in ("native", "reference"))
    assert 0.05 < plain.mean() < 0.95
    assert torch.equal(compiled, plain)


def test_gradients_are_those_of_autograd_for_every_operation():
    def formula(a, b):
        return exp(a * 0.3) / b - tanh(a - 2 * b) * sigmoid(-b) + (1 - a) / 4 + 3 / b

    a, b = (
        torch.tensor(0.7, dtype=torch.float64).requires_grad_(),
        torch.tensor(-1.3, dtype=torch.float64).requires_grad_(),
    )
    formula(a, b).backward()
    x, y = symbol("x"), symbol("y")
    found = gradients([(formula(x, y), symbol("one"))], [x, y])

    def value(node):
        if node.operation == "input":
            return {"x": a.item(), "y": b.item(), "one": 1.0}[node.text]
        if node.operation == "constant":
            return float(node.text.removeprefix("NUMBER(").removesuffix(")"))
        operands = [value(operand) for operand in node.operands]
        return {
            "+": lambda p, q: p + q,
            "-": lambda p, q: p - q,
            "*": lambda p, q: p * q,
            "/": lambda p, q: p / q,
            "neg": lambda p: -p,
            "exp": math.exp,
            "tanh": math.tanh,
            "sigmoid": lambda p: 1 / (1 + math.exp(-p)),
        }[node.operation](*operands)

    assert [value(node) for node in found] == pytest.approx([a.grad.item(), b.grad.item()], rel=1e-12)


@pytest.mark.parametrize(
    ("charge", "text"),
    [
        (lambda x, state, const: x if x - 1 else state.v, "an equation cannot branch on its values"),
        (lambda x, state, const: state.w + x, "has no attribute 'w'"),
        (lambda x, state, const: x * "two", "made of their arguments and of finite numbers, got 'two'"),
        (lambda x, state, const: x * math.inf, "made of their arguments and of finite numbers, got inf"),
    ],
)
def test_what_is_no_equation_is_refused_with_the_rule(charge, text):
    equations = Equations(charge, lambda u, s, x, state, const: (u * (1 - s),), sigmoid_step)
    with pytest.raises(TypeError, match=text):
        loop_body(equations)
    with pytest.raises(TypeError, match=r"must use \+ - \* / and exp, sigmoid, tanh"):
        record(charge, symbol("x_"), type("State", (), {"v": symbol("st_v")})(), None)
