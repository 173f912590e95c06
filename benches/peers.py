"""Peers that read bytes at each of many addresses, with one call for each read.

Runs as a program under any Python that has the peer. It reads a job as JSON from the first line of
its input and prints the first value. For each further line, it reads the job's members, offset and
size of each, at all addresses and prints the nanoseconds per address: CPU time for the line "CPU
time", else elapsed time. It does not import this project: the system's Python, in which
libkdumpfile is installed, need not have it.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

#: Makes a function that reads so many bytes.
Reader = Callable[[int], Callable[[int], Any]]


def drgn_reader(job: dict[str, Any]) -> Reader:
    """drgn: physical addresses of any ELF dump, virtual ones of a Linux kernel's."""
    import drgn

    program = drgn.Program()
    program.set_core_dump(job["path"])
    physical = job["kind"] == "physical"

    def of_size(size: int) -> Callable[[int], Any]:
        if size == 8:
            return lambda address: program.read_u64(address, physical)
        return lambda address: program.read(address, size, physical)

    return of_size


def kdumpfile_reader(job: dict[str, Any]) -> Reader:
    """libkdumpfile."""
    import kdumpfile

    dump = kdumpfile.kdumpfile(job["path"])
    if job["kind"] == "physical":
        kind = kdumpfile.KDUMP_MACHPHYSADDR
    else:
        dump.attr["addrxlat.ostype"] = "linux"
        kind = kdumpfile.KDUMP_KVADDR
    read = dump.read
    return lambda size: lambda address: read(kind, address, size)


READERS = {"drgn": drgn_reader, "libkdumpfile": kdumpfile_reader}


def answer(value: object) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    """Measures one peer on one list of addresses."""
    job = json.loads(sys.stdin.readline())
    of_size = READERS[job["peer"]](job)
    addresses = job["addresses"]
    first = of_size(8)(addresses[0])
    answer(int.from_bytes(first, "little") if isinstance(first, (bytes, bytearray)) else first)
    # One call for each member of a struct.
    reads = [
        (of_size(size), [address + offset for address in addresses])
        for offset, size in job["members"]
    ]
    for line in sys.stdin:
        clock = time.process_time_ns if line.strip() == "CPU time" else time.perf_counter_ns
        start = clock()
        for read, places in reads:
            for address in places:
                read(address)
        answer((clock() - start) / len(addresses))


if __name__ == "__main__":
    main()
