"""CUDA sources: NVRTC builds every kernel of every neuron without a GPU, from the very text that the CPU runs."""

import subprocess
import sys

import pytest
import torch
from neurons_of_my_own import AdaptiveLIF, Wordy

from spaces import InputError
from supernet.neurons import NEURONS, SURROGATES, check_executor
from supernet.neurons.cuda import BUCKETS, OPTIONS, CudaKernels, compile_check
from supernet.neurons.equations import loop_body
from supernet.neurons.generate import CPU_TYPES, CUDA_TYPES, cpu_source, cuda_source

ARCHITECTURES = ("sm_80", "sm_90")
NAMED = {
    f"{name}-{surrogate}-{'soft' if soft else 'hard'}": make(SURROGATES[surrogate], soft).equations
    for name, make in (NEURONS | {"own": AdaptiveLIF, "wordy": Wordy}).items()
    for surrogate in SURROGATES
    for soft in (False, True)
}
DISTINCT = {equations: name for name, equations in NAMED.items()}
"""Equations without those that have the same text, as of the neurons that differ by where constants come from."""

each_equations = pytest.mark.parametrize("equations", DISTINCT, ids=DISTINCT.values())
each_type = pytest.mark.parametrize("dtype", CUDA_TYPES)


@pytest.fixture
def nvrtc():
    """Skip without the compiler of CUDA sources, which needs neither a GPU nor a driver."""
    pytest.importorskip("cupy", reason="CuPy is not installed; pip install 'spikefront[gpu]'")
    from cupy.cuda import nvrtc

    return nvrtc


def is_binary_for(arch, binary):
    """Return whether bytes are an ELF file of an architecture; ``e_flags`` holds its number in the second byte."""
    number = int(arch.removeprefix("sm_"))
    return binary[:4] == b"\x7fELF" and number in binary[48:52]


@each_equations
@each_type
def test_every_neuron_compiles_for_a_gpu(nvrtc, equations, dtype):
    """All kernels but the unrolled ones, which repeat the text of these; architectures take turns."""
    arch = ARCHITECTURES[list(DISTINCT).index(equations) % 2]
    source = cuda_source(equations, dtype)
    for bucket in (None, 0):
        assert is_binary_for(arch, compile_check(source, arch, bucket))


@pytest.mark.parametrize(("name", "arch"), [("lif-sigmoid-hard", "sm_80"), ("own-sigmoid-soft", "sm_90")])
@pytest.mark.parametrize("bucket", [None, 0, *BUCKETS])
def test_every_kernel_compiles_for_every_architecture(nvrtc, name, arch, bucket):
    assert is_binary_for(arch, compile_check(cuda_source(NAMED[name], "float32"), arch, bucket))


@each_type
@pytest.mark.parametrize("bucket", BUCKETS[:2])
def test_every_type_compiles_unrolled(nvrtc, dtype, bucket):
    assert is_binary_for("sm_90", compile_check(cuda_source(NAMED["lif-sigmoid-hard"], dtype), "sm_90", bucket))


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@each_type
@each_equations
def test_every_kernel_of_every_neuron_compiles_in_every_type(nvrtc, equations, dtype, arch):
    for bucket in (None, 0, *BUCKETS):
        assert is_binary_for(arch, compile_check(cuda_source(equations, dtype), arch, bucket))


@each_equations
@each_type
def test_a_gpu_runs_the_very_text_that_a_cpu_runs(equations, dtype):
    body, cuda = loop_body(equations), cuda_source(equations, dtype)
    cpu = cpu_source(equations, dtype if dtype in CPU_TYPES else "float32")
    for source in (cuda, cpu):
        assert source.count(body.forward) == 3, "once forward, twice on the way back"
        assert source.count(body.backward) == 1
        assert "@" not in source


def test_fused_multiplications_are_off_and_divisions_are_exact():
    """With them a potential could land on the other side of its threshold."""
    assert "--fmad=false" in OPTIONS
    assert not any("fast" in option or "ftz" in option or "prec" in option for option in OPTIONS)


def test_a_source_that_does_not_compile_is_refused_with_the_compilers_words(nvrtc):
    source = cuda_source(NAMED["lif-sigmoid-hard"], "float32").replace("const real e =", "const real w =")
    with pytest.raises(ValueError, match=r'NVRTC cannot build a kernel for sm_80: .*\n.*identifier "e" is undefined'):
        compile_check(source, "sm_80")


@pytest.mark.parametrize(("start", "size", "aligned"), [(0, 6, 1), (1, 6, 0), (2, 6, 1), (0, 5, 0)])
def test_pairs_of_short_floats_are_loaded_at_once_only_where_they_are_aligned(start, size, aligned):
    """A GPU refuses addresses that a processor would take."""
    launched = []

    def launch(kernel, bucket, device, threads, arguments):
        launched.append(arguments)

    equations = NAMED["lif-sigmoid-hard"]
    x = torch.zeros(3 * size + start, dtype=torch.bfloat16)[start:].view(3, size)
    kernels = CudaKernels(equations, x.dtype, launch)
    kernels.forward(x, 3, [1.0, 0.5], None, True, False, None)
    kernels.backward(x, 3, [1.0, 0.5], None, torch.zeros(3, size, dtype=x.dtype), False)
    assert [arguments[-3] for arguments in launched] == [aligned, aligned]


@pytest.mark.parametrize(("timesteps", "bucket"), [(1, 4), (4, 4), (5, 8), (9, 16), (32, 32), (33, 0)])
def test_timesteps_choose_the_smallest_kernel_that_holds_them(timesteps, bucket):
    launched = []

    def launch(kernel, bucket, device, threads, arguments):
        launched.append((kernel, bucket))

    x = torch.zeros(timesteps, 5)
    CudaKernels(NAMED["lif-sigmoid-hard"], x.dtype, launch).backward(x, timesteps, [1.0, 0.5], None, x, False)
    assert launched == [("neuron_backward", bucket)]


def test_without_a_gpu_the_executor_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"executor 'cupy' cannot be used here: .*CUDA.*; or use executor 'auto'"):
        check_executor("cupy")


def test_neurons_are_imported_without_cupy():
    code = "import sys; import supernet.neurons.cuda; assert 'cupy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
