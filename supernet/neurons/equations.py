"""A neuron is its equations: how it charges, when it fires, how it resets.

The same four functions are run by torch as the reference, and recorded once to become the loop body of the compiled
CPU kernel and of the CUDA kernel, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from supernet.neurons.expressions import Expression, gradients, record, symbol, to_c
from supernet.neurons.surrogate import Surrogate

Constants = Mapping[str, float | Tensor]
"""Numbers of one call by name; a learned one is a tensor of no dimensions."""


def _fixed_threshold(_: Any, const: Any) -> Any:
    return const.v_threshold


@dataclass(frozen=True)
class Equations:
    """One timestep of a neuron. Arguments are values, and namespaces of states and constants.

    .. code-block:: text

        u = charge(x, state, const)
        s = H(u - threshold(state, const))             H has the surrogate's derivative
        state = reset(u, s, x, state, const)           this s carries no gradient

    Attributes:
        charge: The charged potential from the current ``x`` and the states before.
        reset: The states after the step, as a tuple in the order of ``states``.
        surrogate: Step function with its derivative.
        threshold: Potential at and above which the neuron fires, by default the constant ``v_threshold``.
        states: Names of what a neuron remembers; all are 0 before the first timestep.
        constants: Names of the numbers that a call provides.
    """

    charge: Callable[[Any, Any, Any], Any]
    reset: Callable[[Any, Any, Any, Any, Any], tuple[Any, ...]]
    surrogate: Surrogate
    threshold: Callable[[Any, Any], Any] = _fixed_threshold
    states: tuple[str, ...] = ("v",)
    constants: tuple[str, ...] = ("v_threshold",)


def integrate(x: Tensor, equations: Equations, constants: Constants) -> Tensor:
    """Return the spikes of neurons by plain torch, the meaning that every kernel reproduces.

    Args:
        x: Input currents ``(T, B, ...)``.
        equations: The neuron.
        constants: Values of its constants.

    Returns:
        Spikes in {0, 1}, same shape and dtype as ``x``; potentials are computed in float32 or wider.
    """
    currents = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    const = SimpleNamespace(**constants)
    state = SimpleNamespace(**{name: torch.zeros_like(currents[0]) for name in equations.states})
    spikes = []
    for current in currents:
        u = equations.charge(current, state, const)
        s = equations.surrogate(u - equations.threshold(state, const))
        after = equations.reset(u, s.detach(), current, state, const)
        state = SimpleNamespace(**dict(zip(equations.states, after, strict=True)))
        spikes.append(s)
    return torch.stack(spikes).to(x.dtype)


@dataclass(frozen=True)
class LoopBody:
    """C text of one timestep, for the loops of every executor.

    Inputs are ``x_``, ``st_<state>``, ``k_<constant>``; backward also ``gs`` (the scalar's derivative by the spike)
    and ``gn_<state>`` (by each state after the step).

    Attributes:
        states: Names of the states.
        constants: Names of the constants.
        forward: Defines ``s`` and ``n_<state>``.
        backward: Defines ``gx_``, ``gst_<state>`` and ``gk_<constant>``.
    """

    states: tuple[str, ...]
    constants: tuple[str, ...]
    forward: str
    backward: str


def loop_body(equations: Equations) -> LoopBody:
    """Return the C text of a neuron's timestep.

    Raises:
        TypeError: If an equation is not arithmetic on its arguments.
    """
    x = symbol("x_")
    states = {name: symbol(f"st_{name}") for name in equations.states}
    constants = {name: symbol(f"k_{name}") for name in equations.constants}
    state, const = SimpleNamespace(**states), SimpleNamespace(**constants)
    u: Expression = record(equations.charge, x, state, const)
    excess: Expression = u - record(equations.threshold, state, const)
    fired = symbol("s")
    after: tuple[Expression, ...] = record(equations.reset, u, fired, x, state, const)
    if not isinstance(after, tuple) or len(after) != len(states):
        raise TypeError(f"reset must return a tuple of the states {list(states)}, got {after!r}")
    excess_name, u_name = symbol("e"), symbol("u")
    slope: Expression = record(equations.surrogate.derivative, excess_name)
    forward = [
        to_c({"u": u, "e": excess}, "f"),
        "const real s = real_step(e);",
        to_c({f"n_{name}": node for name, node in zip(states, after, strict=True)}, "r"),
    ]
    inputs = [x, *states.values(), *constants.values()]
    outgoing = [(node, symbol(f"gn_{name}")) for name, node in zip(states, after, strict=True)]
    outgoing.append((excess, symbol("gs") * slope))
    # The forward text has defined u and e: the backward text names them instead of computing them again.
    named = {id(u): u_name, id(excess): excess_name}
    found = gradients(outgoing, inputs)
    names = ["gx_", *(f"gst_{name}" for name in states), *(f"gk_{name}" for name in constants)]
    backward = to_c({name: _replace(node, named) for name, node in zip(names, found, strict=True)}, "b")
    return LoopBody(equations.states, equations.constants, "\n".join(forward), backward)


def _replace(node: Expression, named: dict[int, Expression]) -> Expression:
    """Return an expression with some of its nodes replaced; shared nodes stay shared."""
    if id(node) not in named:
        operands = tuple(_replace(operand, named) for operand in node.operands)
        same = all(new is old for new, old in zip(operands, node.operands, strict=True))
        named[id(node)] = node if same else Expression(node.operation, operands, node.text)
    return named[id(node)]
