"""A process that forks while other threads build tables."""

import os
import signal
import sys
import threading

import pytest

from xenkdump_fast._native import P2M

from .conftest import Guest
from .machine import FRAME_LIST


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_can_use_tables_that_a_thread_was_building(guest: Guest) -> None:
    mfn = guest.entries[1023]
    shared = [P2M.frame_list(guest.dump, FRAME_LIST, 8)]
    done = threading.Event()

    def build() -> None:
        while not done.is_set():
            shared[0] = P2M.frame_list(guest.dump, FRAME_LIST, 8)
            shared[0].reverse(mfn)
            shared[0].spans()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # ends a child that hangs
                os._exit(0 if shared[0].reverse(mfn) == 1023 else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
