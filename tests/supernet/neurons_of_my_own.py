"""A neuron that the package does not have: two states, a threshold that adapts, and a learned constant."""

import torch
from torch import nn

from supernet.neurons import Equations, SpikingNeuron, sigmoid_step


def charge(x, state, const):
    return state.v + (x - state.v) * const.leak


def threshold(state, const):
    return const.v_threshold + const.rise * state.fatigue


def reset(u, s, x, state, const):
    return u - s * const.v_threshold, state.fatigue * 0.75 + s


def wordy_charge(x, state, const):
    return state.v / 2.0 * const.keep + (x - state.v) / const.tau + x * (const.leak * const.keep)


def wordy_threshold(state, const):
    return const.v_threshold / 2 + const.leak


def wordy_reset(u, s, x, state, const):
    return (u * (1 - const.leak) - s * (const.v_threshold - const.leak) - s * u * const.keep,)


class Wordy(SpikingNeuron):
    """Leaky neurons whose equations divide by constants and compute with constants alone."""

    def __init__(self, surrogate=sigmoid_step, soft=True, executor="auto"):
        constants = ("v_threshold", "leak", "keep", "tau")
        super().__init__(
            Equations(wordy_charge, wordy_reset, surrogate, wordy_threshold, constants=constants), executor
        )

    def constants(self, v_threshold, tau):
        return {"v_threshold": v_threshold, "leak": 0.25, "keep": 0.75, "tau": tau}


class AdaptiveLIF(SpikingNeuron):
    """Leaky neurons that tire: every spike raises the threshold, by a learned amount, and the rise decays."""

    def __init__(self, surrogate=sigmoid_step, soft=True, executor="auto"):
        constants = ("v_threshold", "leak", "rise")
        super().__init__(Equations(charge, reset, surrogate, threshold, ("v", "fatigue"), constants), executor)
        self.rise = nn.Parameter(torch.tensor(0.25))

    def constants(self, v_threshold, tau):
        return {"v_threshold": v_threshold, "leak": 1 / tau, "rise": self.rise}
