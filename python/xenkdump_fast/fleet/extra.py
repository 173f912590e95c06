"""Packages of the extra ``[fleet]``, imported where they are used."""

from importlib import import_module
from types import ModuleType


class MissingError(ImportError):
    """A package that triage needs is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"{package} is not installed. Install it with: pip install 'xenkdump_fast[fleet]'"
        )


def module(name: str) -> ModuleType:
    """A module of such a package; MissingError if it is not installed."""
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingError(package) from None
