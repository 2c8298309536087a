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


class AdaptiveLIF(SpikingNeuron):
    """Leaky neurons that tire: every spike raises the threshold, by a learned amount, and the rise decays."""

    def __init__(self, surrogate=sigmoid_step, soft=True, executor="auto"):
        constants = ("v_threshold", "leak", "rise")
        super().__init__(Equations(charge, reset, surrogate, threshold, ("v", "fatigue"), constants), executor)
        self.rise = nn.Parameter(torch.tensor(0.25))

    def constants(self, v_threshold, tau):
        return {"v_threshold": v_threshold, "leak": 1 / tau, "rise": self.rise}
