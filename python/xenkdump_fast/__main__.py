"""``python -m xenkdump_fast`` is ``xkdump``."""

from .cli import main

raise SystemExit(main())
