"""The peers that read a number of 8 bytes at each of many addresses, one call an address.

Run as a program under any Python that has the peer: it reads a job as JSON on its input and writes
the nanoseconds an address as JSON. It imports nothing of this project: a system's own Python,
which has libkdumpfile, has no part of it.
"""

import json
import sys
import time
from collections.abc import Callable


def drgn_reader(job: dict[str, object]) -> Callable[[int], object]:
    """drgn: physical addresses of any ELF dump, virtual ones of a Linux kernel's."""
    import drgn

    program = drgn.Program()
    program.set_core_dump(str(job["path"]))
    physical = job["kind"] == "physical"
    return lambda address: program.read_u64(address, physical)


def kdumpfile_reader(job: dict[str, object]) -> Callable[[int], object]:
    """libkdumpfile."""
    import kdumpfile

    dump = kdumpfile.kdumpfile(str(job["path"]))
    if job["kind"] == "physical":
        kind = kdumpfile.KDUMP_MACHPHYSADDR
    else:
        dump.attr["addrxlat.ostype"] = "linux"
        kind = kdumpfile.KDUMP_KVADDR
    read = dump.read
    return lambda address: read(kind, address, 8)


READERS = {"drgn": drgn_reader, "libkdumpfile": kdumpfile_reader}


def main() -> None:
    """Measures one peer on one list of addresses."""
    job = json.load(sys.stdin)
    read = READERS[job["peer"]](job)
    addresses = job["addresses"]
    first = read(addresses[0])
    best = float("inf")
    for _ in range(job["rounds"]):
        start = time.perf_counter_ns()
        for address in addresses:
            read(address)
        best = min(best, (time.perf_counter_ns() - start) / len(addresses))
    value = int.from_bytes(first, "little") if isinstance(first, (bytes, bytearray)) else first
    json.dump({"ns": best, "first": value}, sys.stdout)


if __name__ == "__main__":
    main()
