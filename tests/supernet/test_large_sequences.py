"""Results larger than the caches are written past them: the same values, at every alignment and number of threads."""

import pytest
import torch

from supernet.neurons import LIF, native

pytestmark = pytest.mark.skipif(native.problem() is not None, reason=str(native.problem()))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 3], ids=["aligned", "ragged"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_large_results_equal_those_of_plain_torch(dtype, size, threads, request):
    before = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(before))
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(size)
    x = (2 * torch.randn(4, size, generator=generator)).to(dtype)
    g = torch.randn(4, size, generator=generator).to(dtype)
    assert x.nbytes >= 8 << 20
    found = {}
    for executor in ("native", "reference"):
        current = x.clone().requires_grad_()
        spikes = LIF(executor=executor)(current, 0.7, 3.0)
        spikes.backward(g)
        found[executor] = (spikes.detach(), current.grad)
    assert 0.05 < found["reference"][0].float().mean() < 0.95
    assert torch.equal(found["native"][0], found["reference"][0])
    rounding = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float64: 1e-9}[dtype]
    torch.testing.assert_close(found["native"][1], found["reference"][1], rtol=rounding, atol=1e-6)
