"""Neurons against SpikingJelly 2.0, torch's own copy, and the plain-torch reference: interleaved medians, one thread.

pip install --no-deps "spikingjelly>=2.0" && pip install loguru h5py
python benchmarks/neurons.py [--rounds 31] [--timesteps 4] [--threads 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from measure import interleaved, save, start
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from supernet.neurons import LIF, SURROGATES

THEIRS = {"sigmoid": surrogate.Sigmoid, "atan": surrogate.ATan}


def main() -> None:
    """Print ratios for each surrogate, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31, help="interleaved rounds")
    parser.add_argument("--timesteps", type=int, default=4, help="simulation length")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides")
    arguments = parser.parse_args()
    start(arguments.threads)
    torch.manual_seed(0)
    shape = (arguments.timesteps, 32, 384, 8, 8)
    x, g = 1.2 * torch.randn(shape), torch.randn(shape)
    results = {}
    for kind, theirs in THEIRS.items():
        networks: dict[str, nn.Module] = {
            "spikingjelly": neuron.LIFNode(surrogate_function=theirs(), detach_reset=True, step_mode="m"),
            "spikefront": LIF(SURROGATES[kind]),
            "reference": LIF(SURROGATES[kind], executor="reference"),
        }
        trained = {name: _trained(network, x, g) for name, network in networks.items()}
        spikes, gradient = trained["spikingjelly"]()
        for name in ("spikefront", "reference"):
            own, own_gradient = trained[name]()
            error = ((own_gradient - gradient).norm() / gradient.norm()).item()
            print(f"{kind} {name}: spikes equal {torch.equal(own, spikes)}, gradient differs by {error:.1e}")
            results[f"{kind} {name} exact"] = {"spikes": torch.equal(own, spikes), "gradient": error}
        copy = torch.empty_like(x)
        calls: dict[str, Callable[[], object]] = {f"{name} training": call for name, call in trained.items()}
        calls |= {f"{name} inference": _inferred(network, x) for name, network in networks.items()}
        calls["copy"] = lambda copy=copy: copy.copy_(x)
        seconds = interleaved(calls, arguments.rounds)
        for mode in ("training", "inference"):
            ratio = seconds[f"spikingjelly {mode}"] / seconds[f"spikefront {mode}"]
            print(
                f"{kind} {mode}: SpikingJelly {seconds[f'spikingjelly {mode}'] * 1e3:.2f} ms, Spikefront "
                f"{seconds[f'spikefront {mode}'] * 1e3:.2f} ms, ratio {ratio:.2f}; "
                f"copy {seconds['copy'] * 1e3:.2f} ms"
            )
            results[f"{kind} {mode}"] = {"ratio": ratio, "seconds": seconds}
    save("neurons", {"shape": shape, "threads": arguments.threads, "rounds": arguments.rounds, **results})


def _trained(network: nn.Module, x: Tensor, g: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    def call() -> tuple[Tensor, Tensor]:
        current = x.detach().requires_grad_()
        functional.reset_net(network)
        spikes = network(current)
        spikes.backward(g)
        assert current.grad is not None
        return spikes.detach(), current.grad

    return call


def _inferred(network: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        functional.reset_net(network)
        with torch.no_grad():
            spikes: Tensor = network(x)
        return spikes

    return call


if __name__ == "__main__":
    main()
