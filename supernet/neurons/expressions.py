"""Scalar expressions recorded from Python functions, printed as C and differentiated.

A neuron's equations are Python functions of ``+ - * /`` and the functions of this module. Called with tensors they
compute; called with :class:`Expression` they leave a graph behind, whose operations a kernel does in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value", Tensor, "Expression", float)


@dataclass(frozen=True, eq=False)
class Expression:
    """A node: an input or a constant by its ``text``, or an operation on other nodes.

    Attributes:
        operation: ``input``, ``constant``, ``+ - * /``, ``neg``, or a row of ``FUNCTIONS``.
        operands: What the operation works on.
        text: C text of an input or a constant.
    """

    operation: str
    operands: tuple[Expression, ...] = ()
    text: str = ""

    @property
    def number(self) -> float:
        """Value of a constant."""
        return float(self.text.removeprefix("NUMBER(").removesuffix(")"))

    def __add__(self, other: Expression | float) -> Expression:
        return Expression("+", (self, lift(other)))

    def __radd__(self, other: float) -> Expression:
        return Expression("+", (lift(other), self))

    def __sub__(self, other: Expression | float) -> Expression:
        return Expression("-", (self, lift(other)))

    def __rsub__(self, other: float) -> Expression:
        return Expression("-", (lift(other), self))

    def __mul__(self, other: Expression | float) -> Expression:
        return Expression("*", (self, lift(other)))

    def __rmul__(self, other: float) -> Expression:
        return Expression("*", (lift(other), self))

    def __truediv__(self, other: Expression | float) -> Expression:
        return Expression("/", (self, lift(other)))

    def __rtruediv__(self, other: float) -> Expression:
        return Expression("/", (lift(other), self))

    def __neg__(self) -> Expression:
        return Expression("neg", (self,))

    def __bool__(self) -> bool:
        raise TypeError("an equation cannot branch on its values: it becomes one kernel for all neurons")


def lift(value: Expression | float) -> Expression:
    """Return a number as an expression.

    Raises:
        TypeError: If it is neither a number nor an expression; equations hold no tensors.
    """
    if isinstance(value, Expression):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"equations are made of their arguments and of finite numbers, got {value!r}")
    return Expression("constant", text=f"NUMBER({float(value)!r})")


def symbol(name: str) -> Expression:
    """Return an input by its C name."""
    return Expression("input", text=name)


FUNCTIONS = {"exp": torch.exp, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


def _call(name: str, x: Value) -> Value:
    if isinstance(x, Expression):
        return Expression(name, (x,))
    if isinstance(x, int | float):  # a constant of the call
        return FUNCTIONS[name](torch.tensor(x, dtype=torch.float64)).item()
    return FUNCTIONS[name](x)


def exp(x: Value) -> Value:
    """Return e to the x."""
    return _call("exp", x)


def sigmoid(x: Value) -> Value:
    """Return 1 / (1 + exp(-x))."""
    return _call("sigmoid", x)


def tanh(x: Value) -> Value:
    """Return the hyperbolic tangent of x."""
    return _call("tanh", x)


def in_order(outputs: Sequence[Expression]) -> list[Expression]:
    """Return all nodes that outputs need, operands before what uses them."""
    found: dict[int, Expression] = {}

    def visit(node: Expression) -> None:
        if id(node) not in found:
            for operand in node.operands:
                visit(operand)
            found[id(node)] = node

    for output in outputs:
        visit(output)
    return list(found.values())


def to_c(outputs: Mapping[str, Expression], prefix: str) -> str:
    """Return C statements that define a ``const real`` for each output.

    Args:
        outputs: Expressions by the C name to define.
        prefix: Beginning of the names of intermediate values.
    """
    names: dict[int, str] = {}
    scalars: set[int] = set()  # what does not depend on the neuron: on a CPU `real` holds several neurons
    lines: list[str] = []
    for node in in_order(list(outputs.values())):
        if node.operation in ("input", "constant"):
            names[id(node)] = node.text
            if node.operation == "constant" or node.text.startswith("k_"):
                scalars.add(id(node))
            continue
        operands = [names[id(operand)] for operand in node.operands]
        scalar = all(id(operand) in scalars for operand in node.operands)
        if node.operation == "neg":
            text = f"-{operands[0]}"
        elif node.operation in FUNCTIONS:
            text = f"real_{node.operation}({f'SPLAT({operands[0]})' if scalar else operands[0]})"
            scalar = False
        else:
            text = f"{operands[0]} {node.operation} {operands[1]}"
        if scalar:
            scalars.add(id(node))
        names[id(node)] = f"{prefix}{len(lines)}"
        lines.append(f"const {'scalar' if scalar else 'real'} {names[id(node)]} = {text};")
    for name, node in outputs.items():
        text = names[id(node)]
        lines.append(f"const real {name} = {f'SPLAT({text})' if id(node) in scalars else text};")
    return "\n".join(lines)


def gradients(outputs: Sequence[tuple[Expression, Expression]], inputs: Sequence[Expression]) -> list[Expression]:
    """Return the derivative of a scalar by each input, by the chain rule from back to front.

    Args:
        outputs: Expressions and the scalar's derivative by each of them.
        inputs: Nodes to differentiate by; what no output depends on gets 0.
    """
    adjoints: dict[int, Expression] = {}

    def accumulate(node: Expression, value: Expression) -> None:
        adjoints[id(node)] = _add(adjoints[id(node)], value) if id(node) in adjoints else value

    for output, adjoint in outputs:
        accumulate(output, adjoint)
    for node in reversed(in_order([output for output, _ in outputs])):
        if node.operands and id(node) in adjoints:
            for operand, factor in zip(node.operands, _partials(node), strict=True):
                if operand.operation != "constant":
                    accumulate(operand, _multiply(adjoints[id(node)], factor))
    return [adjoints.get(id(node), lift(0.0)) for node in inputs]


def _partials(node: Expression) -> Iterator[Expression]:
    """Yield the derivative of an operation by each operand."""
    a, b = (*node.operands, lift(0.0))[:2]
    one = lift(1.0)
    match node.operation:
        case "+":
            yield from (one, one)
        case "-":
            yield from (one, lift(-1.0))
        case "*":
            yield from (b, a)
        case "/":
            yield from (one / b, -(node / b))
        case "neg":
            yield lift(-1.0)
        case "exp":
            yield node
        case "sigmoid":
            yield node * (1 - node)
        case "tanh":
            yield 1 - node * node
        case other:  # pragma: no cover  # every operation above has its row
            raise NotImplementedError(other)


def _is(node: Expression, value: float) -> bool:
    return node.operation == "constant" and node.text == lift(value).text


def _add(a: Expression, b: Expression) -> Expression:
    if _is(a, 0.0) or _is(b, 0.0):
        return b if _is(a, 0.0) else a
    return a + b


def _multiply(a: Expression, b: Expression) -> Expression:
    if _is(a, 0.0) or _is(b, 0.0):
        return lift(0.0)
    if _is(a, 1.0) or _is(b, 1.0):
        return b if _is(a, 1.0) else a
    if _is(a, -1.0) or _is(b, -1.0):
        return -(b if _is(a, -1.0) else a)
    return a * b


def record(function: Any, *arguments: Any) -> Any:
    """Return what an equation gives for symbols, with a clear error if it is not one.

    Raises:
        TypeError: If the function does anything but arithmetic and this module's functions.
    """
    try:
        return function(*arguments)
    except (AttributeError, TypeError) as error:
        raise TypeError(
            f"the equation {getattr(function, '__name__', function)!r} must use + - * / and exp, sigmoid, tanh of "
            f"supernet.neurons.expressions on its arguments: {error}"
        ) from None
