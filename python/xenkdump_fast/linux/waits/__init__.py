"""What sleeping tasks wait for, and for which other tasks.

``functions.py`` says what kind of wait the functions on a stack are, ``rings.py`` finds the struct
by which the task waits and the list that it is in, ``locks.py`` what that list belongs to and who
owns it, ``graph.py`` who waits for whom.
"""
