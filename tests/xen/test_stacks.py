"""Backtraces of a 32-bit Xen, whose notes have a constant in place of the pc."""

from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import bt
from xenkdump_forge import SyntheticDump, write_dump
from xenkdump_forge.parts import Parts
from xenkdump_forge.xen import text32
from xenkdump_forge.xen.xen32 import DIRECT_MAP


def frames(synthetic: SyntheticDump, methods: list[str] | None = None) -> list[Any]:
    """The frames of every pCPU without the guest's, as the plan has them; nothing is missing."""
    host = xk.open(str(synthetic.vmcore)).xen(str(synthetic.directory / "xen-syms"))
    options = bt.Options(unwind=methods) if methods else bt.Options()
    found = []
    for trace in bt.run(host, options).traces:
        assert trace.stopped is None
        *own, guest = trace.frames
        assert guest.user
        assert guest.how == "saved_registers"
        found.append([{"pc": hex(f.pc), "sp": hex(f.sp), "symbol": f.symbol} for f in own])
    return found


@pytest.mark.parametrize("methods", [None, ["cfi"], ["scan"], ["fp", "scan"]])
@pytest.mark.parametrize("kind", ["2006-pae", "xen3"])
def test_every_frame(kind: str, methods: list[str] | None, tmp_path: Path) -> None:
    """One pCPU is in a hypercall, the other was stopped by an NMI in the guest or in Xen."""
    synthetic = write_dump(tmp_path, like=kind)
    planned = [pcpu["frames"] for pcpu in synthetic.plan["pcpus"]]
    outermost = "idle_loop" if kind == "2006-pae" else "handle_nmi_mce"
    assert [chain[-1]["symbol"] for chain in planned] == [outermost, "hypercall"]
    assert frames(synthetic, methods) == planned


def test_symbols_of_a_map_file(tmp_path: Path) -> None:
    """It has neither sizes nor unwind tables."""
    synthetic = write_dump(tmp_path, like="xen3")
    lines = [f"{f.address:08x} T {f.name}" for f in text32.text().functions.values()]
    text = text32.text()
    lines += [f"{text.base - 16:08x} T _stext", f"{text.base + len(text.code):08x} T _etext"]
    (synthetic.directory / "xen-syms").write_text("\n".join(sorted(lines)) + "\n")
    planned = [pcpu["frames"] for pcpu in synthetic.plan["pcpus"]]
    assert frames(synthetic) == planned


def test_the_code_that_saved_the_registers_is_not_in_the_dump(tmp_path: Path) -> None:
    def damage(parts: Parts) -> None:
        saving = text32.text().functions["kexec_crash_save_cpu"]
        parts.kernels[0].guest.machine.write(saving.address - DIRECT_MAP, bytes(saving.size))

    synthetic = write_dump(tmp_path, like="xen3", extra=damage)
    host = xk.open(str(synthetic.vmcore)).xen(str(synthetic.directory / "xen-syms"))
    traces = bt.run(host).traces
    assert [trace.frames[0].symbol for trace in traces] == ["elf_core_save_regs"] * 2
    (warning,) = (text for text in host.warnings if "elf_core_save_regs" in text)
    assert "the innermost frames may be missing" in warning
