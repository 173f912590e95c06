"""A report as one HTML file: styles, script and pictures are in it."""

from .page import MissingError, write

__all__ = ["MissingError", "write"]
