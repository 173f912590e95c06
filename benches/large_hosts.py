"""Commands on a host with 1 TiB and 200 domains, half of them translated: CPU time and peak memory.

``python -m benches.large_hosts TURNS`` measures. Each is run with DWARF of Xen, with symbols only,
and without either; for hosts with NPT (AMD) and with EPT (Intel), which has no record of a root.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from xenkdump_forge.hosts.large import LargeHost, write_large_host

from .guests import folder
from .pairing import Figure, Pair, emit
from .processes import Used, run

MEMORY, DOMAINS = 1 << 40, 200
#: The most CPU time in seconds and memory in bytes of ``domains`` and ``vcpus``.
MOST_SECONDS, MOST_MEMORY = 1.0, 300 << 20


def commands(host: LargeHost) -> Iterator[tuple[str, list[str]]]:
    """The commands, with a name."""
    dump = str(host.vmcore)
    for name in ("domains", "vcpus"):
        for how, syms in (("DWARF", host.xen_syms), ("symbols", host.xen_map), ("nothing", None)):
            more = [] if syms is None else ["--xen-syms", str(syms)]
            yield f"{name}, Xen's {how}", [name, *more, dump]
    yield "report as HTML", ["report", "--overwrite", "-o", f"{host.vmcore}.html", dump]
    for kind, number in (("PV", host.pv), ("HVM", host.hvm)):
        for command in (["bt", "-a"], ["sys"], ["ps"]):
            yield f"{command[0]} of one {kind} domain", [*command, "--domain", str(number), dump]


def measured(turns: int) -> Iterator[Pair | Figure]:
    """The median of the turns, for each host and command."""
    for layout in ("npt", "ept"):
        with ProcessPoolExecutor(1) as other:
            # The memory of this process counts as a child's before it runs its program.
            host = other.submit(write, layout).result()
        for name, arguments in commands(host):
            command = [sys.executable, "-m", "xenkdump_fast", *arguments]
            run(command, b"")  # brings the pages of the file into the system's cache
            used = sorted((run(command, b"") for _ in range(turns)), key=lambda one: one.cpu)
            yield from figures(f"{name}, {layout.upper()} host of 1 TiB", used)


def write(layout: str) -> LargeHost:
    """The host; with EPT its domains have tables of altp2m and of nested HVM, too."""
    where = folder() / f"large-{layout}"
    return write_large_host(where, MEMORY, DOMAINS, layout=layout, views=layout == "ept")


def figures(what: str, used: list[Used]) -> Iterator[Figure]:
    """CPU time and peak memory: those of the median of CPU time."""
    middle = used[len(used) // 2]
    yield Figure(f"CPU time of {what}", middle.cpu / 1e9, "s")
    yield Figure(f"peak memory of {what}", middle.peak / 1024, "MiB")


if __name__ == "__main__":
    emit(measured(int(sys.argv[1])))
