"""Kernels: what all versions share, and a folder per version."""
