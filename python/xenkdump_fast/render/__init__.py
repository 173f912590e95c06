"""Results to lines of text in crash's own format, or to JSON.

Each module has ``lines``, which gives text line by line without line ends, and ``json``. Whatever
prints lines does so through ``escape.printable``: no renderer can pass a terminal something that it
obeys. A field that is padded is escaped before.
"""
