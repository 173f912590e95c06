"""The errors of this package."""


class SyntheticDumpError(Exception):
    """A synthetic dump cannot be built or written; the message is one line."""


class WriteError(SyntheticDumpError):
    """A file cannot be written."""
