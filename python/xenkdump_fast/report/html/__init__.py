"""A report as one HTML file: styles, script and pictures are in it."""

from .page import MissingError, check, write

__all__ = ["MissingError", "check", "write"]
