"""What goes wrong when a sample is written."""


class SampleError(Exception):
    """The sample could not be written; the message is one line for a person to read."""
