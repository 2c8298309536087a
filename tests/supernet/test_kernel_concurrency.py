"""Kernels in several threads, streams, devices and processes."""

import threading

import pytest
import torch
from kernel_contract import CLOSE, Executor, backward, constants_of, each_full_type, new, norm_of, random, reference

from supernet.neurons import Equations, cuda, native, sigmoid_step

# --- side by side


@each_full_type
@pytest.mark.parametrize("name", ["plif", "own"])
def test_threads_change_no_bit(name, dtype):
    """Blocks whose sums are added up are as large whoever computes them."""
    executor = Executor("native", "cpu", native.kernels)
    neuron, shape = new(name, executor, dtype), (3, 701, 37)
    kernels, k = executor.kernels(neuron.equations, dtype), constants_of(neuron)
    x, g = random(shape, executor, dtype), random(shape, executor, dtype, seed=1)
    affine, rows = norm_of(37, executor, dtype), random((2103, 37), executor, dtype)
    vectors = tuple(random((37,), executor, dtype, n) for n in range(4))

    def everything():
        plain, scaled = (kernels.backward(x, 3, k, norm, g, True) for norm in (None, affine))
        fired = [kernels.forward(x, 3, k, norm, True, True, None) for norm in (None, affine)]
        normed = kernels.norm_backward(rows, rows, vectors)
        counts = torch.tensor([int(one.count) for one in fired])
        whole = [plain.x, plain.constants, scaled.x, scaled.sums, scaled.constants, *kernels.moments(rows), normed]
        return [counts, *(one.spikes for one in fired), *(one.bytes for one in fired), *whole]

    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(everything())
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_the_same_call_gives_the_same_bits(executor):
    neuron, shape = new("plif", executor, torch.float32), (4, 3000, 48)
    kernels, k = executor.kernels(neuron.equations, torch.float32), constants_of(neuron)
    x, g = random(shape, executor, torch.float32), random(shape, executor, torch.float32, seed=1)
    affine = norm_of(48, executor, torch.float32)
    first, second = (kernels.backward(x, 4, k, affine, g, True) for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.sums, second.sums)
    assert torch.equal(first.constants, second.constants)


def test_callers_in_several_threads_do_not_disturb_each_other(executor):
    neuron = new("lif", executor, torch.float32)
    inputs = [random((4, 500), executor, torch.float32, seed=seed) for seed in range(6)]
    found = [None] * 6

    def work(n):
        found[n] = executor.fire(inputs[n], neuron)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, reference(x, neuron)) for a, x in zip(found, inputs, strict=True))


def by_nothing(x, state, const):
    return state.v + x


def forget(u, s, x, state, const):
    return (u * 0 + s * 0,)


def test_a_neuron_needs_no_learned_constant_and_may_forget_everything(executor):
    equations = Equations(by_nothing, forget, sigmoid_step)
    x, g = random((5, 33), executor), random((5, 33), executor, seed=1)
    kernels = executor.kernels(equations, x.dtype)
    assert torch.equal(kernels.forward(x, 5, [0.7], None, True, False, None).spikes, (x >= 0.7).double())
    slope = sigmoid_step.derivative(x - 0.7)
    torch.testing.assert_close(kernels.backward(x, 5, [0.7], None, g, False).x, g * slope, **CLOSE[x.dtype])


# --- on a GPU


def test_kernels_run_on_torchs_current_stream(gpu):
    """On any other stream they would read currents that the sleep still holds back."""
    neuron, target = new("lif", gpu, torch.float32), random((4, 1 << 16), gpu, torch.float32)
    expected = reference(target, neuron)
    gpu.fire(target, neuron)  # builds the kernel
    stream, x = torch.cuda.Stream(), torch.zeros_like(target)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        x.copy_(target)
        spikes = gpu.fire(x, neuron)
    stream.synchronize()
    assert torch.equal(spikes, expected)


def test_a_count_does_not_wait_for_the_gpu(gpu):
    neuron, x = new("lif", gpu, torch.float32), random((4, 100), gpu, torch.float32)
    fired = gpu.kernels(neuron.equations, x.dtype).forward(x, 4, constants_of(neuron), None, True, False, None)
    assert fired.count.is_cuda
    assert int(fired.count) == int(fired.spikes.sum())


@each_full_type
def test_a_gpu_takes_more_neurons_than_threads(gpu, dtype):
    neuron, shape = new("plif", gpu, dtype), (4, 3001, 131)
    x, g = random(shape, gpu, dtype), random(shape, gpu, dtype, seed=1)
    spikes, gx, _ = backward(gpu.fire, x, g, neuron)
    expected, expected_gx, _ = backward(reference, x, g, neuron)
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(gx, expected_gx, **CLOSE[dtype])


def test_tensors_are_computed_on_their_own_device(gpu):
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device is visible, this takes two")
    second = Executor("cupy", "cuda:1", cuda.kernels)
    for executor in (gpu, second, gpu):
        neuron, x = new("lif", executor, torch.float32), random((4, 999), executor, torch.float32)
        spikes = executor.fire(x, neuron)
        assert spikes.device == x.device
        assert torch.equal(spikes, reference(x, neuron))


def test_two_actors_share_a_gpu(gpu, monkeypatch):
    import ray

    def fires_as_the_reference(seed):
        import torch

        from supernet.neurons import LIF

        x = torch.randn(4, 1000, generator=torch.Generator().manual_seed(seed)).cuda()
        return torch.equal(LIF(executor="cupy")(x), LIF(executor="reference")(x))

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        half = ray.remote(num_cpus=1, num_gpus=0.5)(fires_as_the_reference)
        assert ray.get([half.remote(seed) for seed in range(2)]) == [True, True]
    finally:
        ray.shutdown()
