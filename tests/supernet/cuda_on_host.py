"""Runs the text of a CUDA source on the host, one thread after another, where g++ can build it."""

import atexit
import ctypes
import itertools
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from supernet.neurons.cuda import CudaKernels
from supernet.neurons.generate import cuda_source

BEFORE = """
#include <cmath>
#include <cstring>
#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __shared__ static
using std::exp; using std::tanh;
static struct { unsigned x; } blockIdx, blockDim = {1}, threadIdx;
template <class T> static T __shfl_down_sync(unsigned, T, int) { return 0; }
static void __syncthreads() {}
template <class T> static void atomicAdd(T *to, T value) { *to += value; }
"""

HALF = """
#ifdef __F16C__
#include <immintrin.h>
inline float widen(unsigned short bits) { return _cvtsh_ss(bits); }
inline unsigned short narrow(float value) { return _cvtss_sh(value, 0); }
#else
inline float widen(unsigned short bits) { __fp16 half; memcpy(&half, &bits, 2); return half; }
inline unsigned short narrow(float value) {
  const __fp16 half = value;
  unsigned short bits;
  memcpy(&bits, &half, 2);
  return bits;
}
#endif
"""

AFTER = """
template <auto Kernel> struct Grid;
template <class... A, void (*Kernel)(A...)> struct Grid<Kernel> {
  static void run(unsigned threads, A... arguments) {
    for (blockIdx.x = 0; blockIdx.x < threads + 3; blockIdx.x++) Kernel(arguments...);
  }
};
#ifdef BUCKET
extern "C" { auto run_neuron_backward = &Grid<neuron_backward>::run; }
#else
extern "C" {
auto run_neuron_forward = &Grid<neuron_forward>::run;
auto run_channel_sums = &Grid<channel_sums>::run;
auto run_norm_backward = &Grid<norm_backward>::run;
}
#endif
"""
"""Some threads more than asked for, as the last block has."""

FLAGS = ("-std=c++17", "-O1", "-march=native", "-ffp-contract=off", "-fPIC", "-shared", "-w")


def problem():
    """Return why the host cannot run CUDA sources, or None if it can."""
    return None if shutil.which("g++") else "g++ is not on the path"


numbers = itertools.count()


@cache
def scratch():
    folder = tempfile.mkdtemp(prefix="cuda-on-host-")
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


@cache
def library(source, half, bucket):
    folder = scratch()
    unit = folder / f"{next(numbers)}.cpp"
    half = HALF if half else ""
    unit.write_text(BEFORE + source + half + AFTER, encoding="utf-8")
    define = [] if bucket is None else [f"-DBUCKET={bucket}"]
    subprocess.run(["g++", *FLAGS, *define, str(unit), "-o", str(unit.with_suffix(".so"))], check=True)
    return ctypes.CDLL(str(unit.with_suffix(".so")))


class HostLaunch:
    """Stands in for a GPU; see ``supernet.neurons.cuda.Launch``."""

    def __init__(self, source, half):
        self.source, self.half = source, half

    def __call__(self, kernel, bucket, device, threads, arguments):
        address = ctypes.c_void_p.in_dll(library(self.source, self.half, bucket), f"run_{kernel}").value
        types = [ctypes.c_int64 if isinstance(value, int) else ctypes.c_double for value in arguments]
        ctypes.CFUNCTYPE(None, ctypes.c_uint, *types)(address)(threads, *arguments)


@cache
def kernels(equations, dtype):
    source = cuda_source(equations, str(dtype).removeprefix("torch."))
    return CudaKernels(equations, dtype, HostLaunch(source, dtype == torch.float16))
