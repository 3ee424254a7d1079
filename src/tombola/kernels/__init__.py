"""Sparse CPU kernels, generated with llvmlite for the machine at hand: products, sampled products, layouts, updates.

Knows matrices, not models: what joins masks and kernels is `compression/runtime.py` and `training/`.
"""
