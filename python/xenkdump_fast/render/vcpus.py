"""``vcpus`` as a table, and as JSON."""

from collections.abc import Iterator
from typing import Any

from ..commands.vcpus import VcpuRow, Vcpus
from .escape import visible
from .frames import registers_json
from .table import table

_HEAD = ("", "DOM", "VCPU", "PCPU", "STATE", "CR3", "RIP", "SYMBOL", "REGISTERS FROM")
#: Columns that are numbers.
_NUMBERS = (1, 2, 3, 5, 6)


def lines(result: Vcpus) -> Iterator[str]:
    """A line a vCPU; ``>`` marks those that were running."""
    rows = [_HEAD, *(tuple(_row(row)) for row in result.rows)]
    return table(rows, _NUMBERS)


def _row(row: VcpuRow) -> Iterator[str]:
    vcpu = row.vcpu
    yield ">" if vcpu.running else ""
    yield "-" if row.domain is None else str(row.domain)
    yield str(vcpu.id)
    yield "-" if vcpu.pcpu is None else str(vcpu.pcpu)
    yield vcpu.state
    yield "-" if vcpu.root is None else f"{vcpu.root:x}"
    pc = _pc(row)
    yield "-" if pc is None else f"{pc:0{(vcpu.word or 8) * 2}x}"
    yield "-" if row.symbol is None else f"{visible(row.symbol)}+{row.offset}"
    yield vcpu.where or "-"


def _pc(row: VcpuRow) -> int | None:
    registers = row.vcpu.registers or {}
    return registers.get("rip", registers.get("eip"))


def json(result: Vcpus) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {"vcpus": [_row_json(row) for row in result.rows]}


def _row_json(row: VcpuRow) -> dict[str, Any]:
    vcpu = row.vcpu
    registers = vcpu.registers
    return {
        "domain": row.domain,
        "id": vcpu.id,
        "vcpu": None if vcpu.address is None else hex(vcpu.address),
        "pcpu": vcpu.pcpu,
        "state": vcpu.state,
        "running": vcpu.running,
        "cr3": None if vcpu.root is None else hex(vcpu.root),
        "symbol": row.symbol,
        "offset": row.offset,
        "registers_from": vcpu.where,
        "registers": None if registers is None else registers_json(registers),
        "warnings": list(vcpu.warnings),
    }
