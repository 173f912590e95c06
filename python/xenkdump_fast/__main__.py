"""``python -m xenkdump_fast`` is ``xkdump``."""

from .process import run

run()
