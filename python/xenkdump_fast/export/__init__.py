"""Writes the memory and the CPUs of a domain, or of Xen, to files that other tools open."""

from .machine import Source, of_domain
from .request import FORMATS, Request
from .writing import ExportError, Written, write

__all__ = ["FORMATS", "ExportError", "Request", "Source", "Written", "of_domain", "write"]
