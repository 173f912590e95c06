"""The vCPU of an idle pCPU by the CR3 notes of 2006."""

from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import bt
from xenkdump_forge import SyntheticDump, write_dump
from xenkdump_forge.elf import notes
from xenkdump_forge.elf.notes import Note
from xenkdump_forge.parts import Parts

#: How the notes are arranged.
ORDERS = ("behind", "before", "zero", "missing")


def with_cr3_notes(directory: Path, kind: str, order: str) -> SyntheticDump:
    """A dump whose pCPU 1 was idle, with CR3 notes in place of all other notes of Xen."""

    def replace(parts: Parts) -> None:
        word = parts.kernels[0].guest.word if kind != "32on64" else 8
        found: list[Note] = []
        for note in parts.core.notes[0]:
            if note.type == notes.NT_PRSTATUS:
                found.append(note)
            elif note.type == notes.XEN_CRASH_REGS:
                cr3 = int.from_bytes(note.desc[2 * word : 3 * word], "little")
                is_idle = len([n for n in found if n.type == notes.NT_PRSTATUS]) == 2
                if is_idle and order == "missing":
                    continue
                mfn = 0 if is_idle and order == "zero" else cr3 // 4096
                cr3_note = notes.kdump_cr3(mfn, word)
                found.insert(len(found) - (order == "before"), cr3_note)
        parts.core.notes = [found]

    return write_dump(directory, like=kind, extra=replace)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["32on64", "modern"])
def test_the_registers_left_on_an_idle_pcpu(kind: str, order: str, tmp_path: Path) -> None:
    synthetic = with_cr3_notes(tmp_path, kind, order)
    dump = xk.open(str(synthetic.vmcore))
    domain = dump.domain(0, str(synthetic.vmlinux))
    traces = bt.run(domain, bt.Options(active=True)).traces
    planned = {int(t["task"], 16): t for t in synthetic.plan["domains"][0]["tasks"]}
    idle, panicked = traces
    stack = planned[panicked.task.address]["registers"]
    pointer = "rsp" if kind == "modern" else "esp"
    assert panicked.registers is not None
    assert hex(panicked.registers[pointer]) == stack[pointer]
    assert panicked.where == "pCPU 0's Xen stack"
    assert idle.registers is not None
    current = hex(idle.registers[pointer]) == planned[idle.task.address]["registers"][pointer]
    warned = any("may be stale" in text for text in domain.warnings)
    if order in ("behind", "before"):
        assert current
        assert idle.where == "pCPU 1's Xen stack, left there when it went idle"
        assert not warned
    else:
        assert idle.where == "struct vcpu"
        assert not current
        assert warned
