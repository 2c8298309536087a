"""Neurons on a GPU, by CUDA kernels that NVRTC compiles and CuPy launches on torch's memory and stream."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from supernet.native.compiler import kernel_folder
from supernet.neurons.equations import Equations
from supernet.neurons.generate import CUDA_TYPES, cuda_source
from supernet.neurons.kernels import Affine, Derivatives, Fired, arithmetic_type, empty_sequence, in_layout_of

_NAMES = {getattr(torch, name): name for name in CUDA_TYPES}

BUCKETS = (4, 8, 16, 32)
"""Timesteps that the backward kernel is built for with states in registers; 0 is the kernel for any number."""

OPTIONS = ("--fmad=false", "--std=c++17", "--disable-warnings")
"""NVRTC options. Spikes equal those of separately rounded operations; subnormal numbers stay as they are."""

_BLOCK = 256
"""Threads of a block."""

_THREADS = 1 << 17
"""Most threads of a launch, the same on every GPU, so that sums are too."""

_SCRATCH = 1 << 26
"""Most bytes for the states of a backward pass over many timesteps, unless one row needs more."""

_INSTALL = "pip install 'spikefront[gpu]'"


def _cupy() -> Any:
    import cupy  # noqa: PLC0415  # an extra, of use with a GPU only

    return cupy


def cap_memory(share: float) -> None:
    """Let CuPy's pool take no more than a part of the GPU's memory, in (0, 1]."""
    _cupy().get_default_memory_pool().set_limit(fraction=share)


@cache
def problem() -> str | None:
    """Return why neurons cannot be computed on a GPU here, or None if they can."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device" if torch.version.cuda else "this torch is built without CUDA"
    try:
        cupy = _cupy()
    except ImportError as error:
        return f"CuPy cannot be imported ({error}); {_INSTALL}"
    try:
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:  # of CuPy or of its finder of libraries
        return f"NVRTC cannot be loaded ({error}); {_INSTALL}"
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy cannot use the GPU ({error}); update the driver, or install the CuPy of its CUDA version"
    return None


def compile_check(source: str, arch: str, bucket: int | None = None) -> bytes:
    """Return the binary of CUDA source for an architecture; neither a GPU nor a driver is needed.

    Args:
        source: Of ``cuda_source``.
        arch: Such as ``sm_90``.
        bucket: Row of ``BUCKETS``, or 0, for a backward kernel; None for all other kernels.

    Raises:
        ValueError: If it does not compile, with NVRTC's messages.
    """
    nvrtc = _cupy().cuda.nvrtc
    program = nvrtc.createProgram(source, "neuron.cu", (), ())
    try:
        options = (f"-arch={arch}", *OPTIONS, *(() if bucket is None else (f"-DBUCKET={bucket}",)))
        nvrtc.compileProgram(program, options)
        return bytes(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        raise ValueError(f"NVRTC cannot build a kernel for {arch}: {error}\n{nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)


class Launch(Protocol):
    """Runs a kernel of one source."""

    def __call__(
        self, kernel: str, bucket: int | None, device: torch.device, threads: int, arguments: tuple[int | float, ...]
    ) -> None:
        """Run so many threads of a kernel of a bucket; integers are passed as 64 bit, floats as double."""
        ...


@dataclass(frozen=True)
class _Stream:
    """A stream by its address, as CuPy takes it from other libraries."""

    address: int

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address  # version of the protocol


class _Cupy:
    """Launches kernels of one source on torch's current stream, each compiled when it is first needed on a device."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._loaded: dict[tuple[str, int | None, int], Any] = {}

    def __call__(
        self, kernel: str, bucket: int | None, device: torch.device, threads: int, arguments: tuple[int | float, ...]
    ) -> None:
        """Run so many threads of a kernel; see :class:`Launch`."""
        cupy = _cupy()
        index = torch.cuda.current_device() if device.index is None else device.index
        stream = _Stream(torch.cuda.current_stream(device).cuda_stream)
        with cupy.cuda.Device(index), cupy.cuda.Stream.from_external(stream):
            if (kernel, bucket, index) not in self._loaded:
                major, minor = torch.cuda.get_device_capability(device)
                module = cupy.RawModule(path=str(_binary(self._source, f"sm_{major}{minor}", bucket)))
                self._loaded[kernel, bucket, index] = module.get_function(kernel)
            self._loaded[kernel, bucket, index]((-(-threads // _BLOCK),), (_BLOCK,), arguments)


def _binary(source: str, arch: str, bucket: int | None) -> Path:
    """Return the file of a compiled source, built if the cache does not have it.

    CuPy's own cache is not used: it compiles with subnormal numbers flushed to zero.
    """
    identity = "\0".join([source, arch, str(bucket), *OPTIONS, str(_cupy().cuda.nvrtc.getVersion())])
    folder = kernel_folder()
    path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.cubin"
    if not path.exists():
        binary = compile_check(source, arch, bucket)
        with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as scratch:
            built = Path(scratch) / "kernel.cubin"
            built.write_bytes(binary)
            built.replace(path)  # whole or not there, whoever builds it at the same time
    return path


@cache
def kernels(equations: Equations, dtype: torch.dtype) -> CudaKernels:
    """Return the CUDA kernels of a neuron.

    Raises:
        TypeError: If an equation is not arithmetic.
    """
    return CudaKernels(equations, dtype)


class CudaKernels:
    """CUDA kernels of one neuron for currents of one type; see :class:`supernet.neurons.kernels.Kernels`.

    Args:
        equations: The neuron.
        dtype: Type of the currents, by its name a row of ``CUDA_TYPES``.
        launch: Runs the kernels, by default CuPy.
    """

    def __init__(self, equations: Equations, dtype: torch.dtype, launch: Launch | None = None) -> None:
        if dtype not in _NAMES:
            raise ValueError(f"currents must be {sorted(CUDA_TYPES)}, got {dtype}")
        self._dtype = dtype
        self._width = CUDA_TYPES[_NAMES[dtype]][2]
        self._n_states, self._n_constants = len(equations.states), len(equations.constants)
        self._launch = launch or _Cupy(cuda_source(equations, _NAMES[dtype]))

    def forward(
        self,
        x: Tensor,
        timesteps: int,
        k: list[float],
        affine: Affine | None,
        spikes: bool,
        as_bytes: bool,
        addend: Tensor | None,
    ) -> Fired:
        """Return the spikes of currents ``(T, M, C)`` or ``(1, M, C)``; the count is a tensor on their device."""
        x = x.to(self._dtype)
        addend = None if addend is None else in_layout_of(addend, x)
        out = empty_sequence(x, timesteps, x.dtype) if spikes else None
        out_bytes = empty_sequence(x, timesteps, torch.uint8) if as_bytes else None
        count = torch.zeros((), dtype=torch.int64, device=x.device)
        size, channels = _sizes(x, affine)
        threads = self._threads(size, channels, _THREADS)
        arguments = (
            *(_address(x), _step(x, timesteps)),
            *((_address(affine.scale), _address(affine.shift)) if affine else (0, 0)),
            *map(_address, (out, out_bytes, addend, count)),
            *(timesteps, size, channels, threads, self._aligned(size, x, out, out_bytes, addend)),
            *map(float, k),
        )
        if size:
            self._launch("neuron_forward", None, x.device, threads, arguments)
        return Fired(out, out_bytes, count)

    def backward(
        self, x: Tensor, timesteps: int, k: list[float], affine: Affine | None, g: Tensor, learned: bool
    ) -> Derivatives:
        """Return derivatives from those by the spikes ``(T, M, C)``, computing the potentials again."""
        x = x.to(self._dtype)
        g = in_layout_of(g.to(self._dtype), x)
        real = arithmetic_type(x.dtype)
        size, channels = _sizes(x, affine)
        bucket = next((steps for steps in BUCKETS if timesteps <= steps), 0)
        state_bytes = timesteps * self._n_states * self._width * real.itemsize
        threads = self._threads(size, channels, _THREADS if bucket else min(_THREADS, _SCRATCH // state_bytes))
        lanes = threads * self._width

        def new(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=x.device)

        gx = empty_sequence(x, x.shape[0], real if affine else x.dtype)
        partial = new(lanes // channels, 2, channels) if affine else None
        by_constant = new(self._n_constants, lanes) if learned else None
        scratch = None if bucket else new(timesteps, lanes, self._n_states, dtype=real)
        arguments = (
            *(_address(x), _step(x, timesteps)),
            *((_address(affine.scale), _address(affine.shift), _address(affine.centre)) if affine else (0, 0, 0)),
            *map(_address, (g, gx, partial, by_constant, scratch)),
            *(timesteps, size, channels, threads, self._aligned(size, x, g, None if affine else gx)),
            *map(float, k),
        )
        if size:
            self._launch("neuron_backward", bucket, x.device, threads, arguments)
        return Derivatives(
            gx,
            None if partial is None else partial.sum(dim=0),
            None if by_constant is None else by_constant.sum(dim=1),
        )

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance per channel of rows ``(R, C)``, ``(C,)`` in float64."""
        x = x.to(self._dtype)
        rows, channels = x.shape
        threads = self._threads(x.numel(), channels, _THREADS)
        shape = (threads * self._width // channels, 2, channels)
        partial = torch.empty(shape, dtype=torch.float64, device=x.device)
        arguments = (_address(x), _address(partial), x.numel(), channels, threads, self._aligned(x.numel(), x))
        self._launch("channel_sums", None, x.device, threads, arguments)
        around = partial.sum(dim=0) / rows
        return x[0].double() + around[0], (around[1] - around[0] ** 2).clamp_(min=0)

    def norm_backward(self, g: Tensor, x: Tensor, vectors: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Return ``gain (g - offset - (x - mean) slope)`` for rows ``(R, C)``, in the type of x."""
        x = x.to(self._dtype)
        gx = torch.empty_like(x)
        channels = x.shape[1]
        threads = self._threads(x.numel(), channels, _THREADS)
        arguments = (
            *map(_address, (g, x, gx, *vectors)),
            *(x.numel(), channels, threads, self._aligned(x.numel(), x, gx)),
        )
        if x.numel():
            self._launch("norm_backward", None, x.device, threads, arguments)
        return gx

    def _threads(self, size: int, channels: int, most: int) -> int:
        """Return how many threads share a timestep: a multiple of the channels, with the same work for each."""
        rows = -(-size // channels)
        rounds = -(-rows // (max(1, most // channels) * self._width))
        return channels * -(-rows // (max(1, rounds) * self._width))

    def _aligned(self, size: int, *tensors: Tensor | None) -> int:
        """Return whether all groups of neighbours that a thread loads at once are complete and aligned."""
        given = [tensor for tensor in tensors if tensor is not None]
        whole = all(tensor.data_ptr() % (self._width * tensor.element_size()) == 0 for tensor in given)
        return int(whole and size % self._width == 0)


def _sizes(x: Tensor, affine: Affine | None) -> tuple[int, int]:
    """Return the elements of a timestep and its channels; without an affine all are one channel."""
    return x[0].numel(), (x.shape[-1] if affine else 1)


def _step(x: Tensor, timesteps: int) -> int:
    """Return the distance of two timesteps, 0 if they are the same memory."""
    return x[0].numel() if x.shape[0] > 1 or timesteps == 1 else 0


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
