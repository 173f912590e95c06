"""Kernels: code that all versions share, and a folder per version."""
