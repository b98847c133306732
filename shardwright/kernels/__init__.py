"""Batched distances between rows and centroids, exact in float64, on plain arrays."""

from shardwright.kernels.cpu import nearest

__all__ = ["nearest"]
