"""Runs drgn's crash-compatible commands on a domain, and prints which ones fail, and why.

``python -m tools.drgn_commands [VMLINUX] VMCORE [--domain N]`` prints the table of docs/drgn.md.
"""

import argparse
import contextlib
import io
import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

from drgn import FaultError, Program
from drgn.helpers.linux.mm import virt_to_phys
from drgn.helpers.linux.pid import find_task

import xenkdump_fast as xk
from xenkdump_fast._native import AbsentError
from xenkdump_fast.bridges.drgn import crash, program_of

#: One command per option that has code of its own. Names in braces are addresses in hex: of the
#: task with pid 1, of its maple tree (6.1 on), of a page; physical addresses of the task.
COMMANDS = """
ascii
ascii 62696c2f7273752f
bpf
bpf -p 1
bt
bt 1
bt -a
bt -c 0
bt -f 1
bt -F 1
bt -l 1
dev
dev -i
dev -p
dev -d
eval 0xff * 2
eval -b (1 << 33)
eval -l 077
files
files 1
files -c 1
foreach kernel ps
foreach gleader files
foreach user vm
foreach bt
help
help ps
ipcs
ipcs -s
irq
irq 0
irq -a
irq -b
irq -s
irq -u
kmem -f
kmem -F
kmem -i
kmem -v
kmem -V
kmem -n
kmem -z
kmem -o
kmem -h
kmem -p
kmem -s
kmem -g
list -H super_blocks
list -o task_struct.tasks -s task_struct.pid,comm -h {init_task}
log
log -t
log -T
mod
mod -t
mount
mount -n 1
net
net -a
p jiffies
p init_task.comm
p runqueues:a
ps
ps -k
ps -u
ps -G
ps -s
ps -p 1
ps -c 1
ps -t 1
ps -l
ps -m
ps -a 1
ps -g 1
ps -r 1
ps -S
ps -A
ptob 2a
rd linux_banner 8
rd -a linux_banner
rd -p {physical} 4
rd -s init_task 4
runq
runq -t
runq -T
runq -m
runq -g
search -c init -s {task} -l 4096
set
set -c 0
set -p
sig 1
sig -l
sig -g 1
struct task_struct.pid,comm init_task
struct list_head
swap
sym schedule
sym -l
sym -q init_task
sys
sys config
task 1
task -R pid,comm 1
timer
timer -r
tree -t maple {maple}
union bpf_attr
vm 1
vtop -k {init_task}
waitq log_wait
whatis task_struct
whatis init_task
whatis schedule
"""


class Outcome(NamedTuple):
    """What became of one command."""

    command: str
    #: Why it failed; None if it did not.
    failure: str | None
    #: What it printed.
    output: str
    seconds: float


def commands(program: Program) -> list[str]:
    """The commands with the addresses of a kernel."""
    task = find_task(program, 1)
    addresses = {"task": task.value_(), "init_task": program["init_task"].address_}
    addresses["physical"] = virt_to_phys(task).value_()
    with contextlib.suppress(AttributeError, FaultError):
        addresses["maple"] = task.mm.mm_mt.address_of_().value_()
    names = {name: f"{address:x}" for name, address in addresses.items()}
    listed = []
    for line in COMMANDS.strip().splitlines():
        with contextlib.suppress(KeyError):  # a tree that the kernel does not have
            listed.append(line.format(**names) if "{" in line else line)
    return listed


def outcomes(program: Program, skip: Collection[str] = ()) -> Iterator[Outcome]:
    """Runs all commands but some."""
    for command in commands(program):
        if command in skip:
            continue
        output = io.StringIO()
        failure = None
        begun = time.process_time()
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                crash.run(program, [command])
        except (AbsentError, crash.CommandUsageError) as error:
            failure = str(error).partition("\n")[0].removeprefix(f"crash {command}: ")
        yield Outcome(command, failure, output.getvalue(), time.process_time() - begun)


def main() -> None:
    """Prints the failures, and the number of all commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", metavar="[VMLINUX] VMCORE")
    parser.add_argument("--domain", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print all outcomes")
    args = parser.parse_args()
    *vmlinux, vmcore = args.files
    with xk.open(vmcore) as dump:
        domain = dump.domain(args.domain, *vmlinux)
        found = []
        for outcome in outcomes(program_of(domain)):
            found.append(outcome)
            if outcome.failure is not None or args.verbose:
                text = outcome.failure or f"{len(outcome.output)} characters"
                print(f"| `{outcome.command}` | {text} | {outcome.seconds:.2f} s |", flush=True)
        works = sum(outcome.failure is None for outcome in found)
        print(f"{works} of {len(found)} commands work")
        for text in domain.warnings:
            print(f"warning: {text}")


if __name__ == "__main__":
    main()
