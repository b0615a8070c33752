"""Compiled kernels (Numba) that drive the C++ core."""
