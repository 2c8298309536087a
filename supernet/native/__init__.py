"""Compiled CPU kernels: C that the host's own compiler builds when it is first needed."""

from supernet.native.compiler import NativeError, build, compiler_problem

__all__ = ["NativeError", "build", "compiler_problem"]
