"""Peers that read 8 bytes at each of many addresses, with one call per address.

Runs as a program under any Python that has the peer. It reads a job as JSON from the first line of
its input and prints the first value. For each further line, it reads all addresses and prints the
nanoseconds per address: CPU time for the line "CPU time", else elapsed time. It does not import
this project: the system's Python, in which libkdumpfile is installed, need not have it.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def drgn_reader(job: dict[str, Any]) -> Callable[[int], Any]:
    """drgn: physical addresses of any ELF dump, virtual ones of a Linux kernel's."""
    import drgn

    program = drgn.Program()
    program.set_core_dump(job["path"])
    physical = job["kind"] == "physical"
    return lambda address: program.read_u64(address, physical)


def kdumpfile_reader(job: dict[str, Any]) -> Callable[[int], Any]:
    """libkdumpfile."""
    import kdumpfile

    dump = kdumpfile.kdumpfile(job["path"])
    if job["kind"] == "physical":
        kind = kdumpfile.KDUMP_MACHPHYSADDR
    else:
        dump.attr["addrxlat.ostype"] = "linux"
        kind = kdumpfile.KDUMP_KVADDR
    read = dump.read
    return lambda address: read(kind, address, 8)


READERS = {"drgn": drgn_reader, "libkdumpfile": kdumpfile_reader}


def answer(value: object) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    """Measures one peer on one list of addresses."""
    job = json.loads(sys.stdin.readline())
    read = READERS[job["peer"]](job)
    addresses = job["addresses"]
    first = read(addresses[0])
    answer(int.from_bytes(first, "little") if isinstance(first, (bytes, bytearray)) else first)
    for line in sys.stdin:
        clock = time.process_time_ns if line.strip() == "CPU time" else time.perf_counter_ns
        start = clock()
        for address in addresses:
            read(address)
        answer((clock() - start) / len(addresses))


if __name__ == "__main__":
    main()
