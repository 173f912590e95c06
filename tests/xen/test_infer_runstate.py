"""Where struct vcpu has its runstate, if pCPUs were switching when the host stopped."""

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from xenkdump_fast.xen import infer
from xenkdump_fast.xen.layout import Layout

SIZE = 1024
#: Offsets in the struct: the processor, the runstate, and words that look like a runstate.
PROCESSOR, RUNSTATE, OTHER = 4, 240, 336
VALID = (100_000, 90_000, 1_000, 9_000, 0)


def vcpu(number: int, processor: int, state: int, pcpu: int | None, *, other: bool) -> Any:
    data = bytearray(SIZE)
    struct.pack_into("<II", data, 0, number, processor)
    struct.pack_into("<6Q", data, RUNSTATE, state, *VALID)
    if other:
        struct.pack_into("<6Q", data, OTHER, 0, *VALID)
    words = struct.unpack(f"<{SIZE // 8}Q", data)
    running = None if pcpu is None else SimpleNamespace(number=pcpu)
    return infer._Vcpu(infer._Struct(0x1000, bytes(data), words), number, 0, running)  # type: ignore[arg-type]


def found(*vcpus: Any) -> int | None:
    memory: Any = SimpleNamespace(word=8)
    inference = infer._Inference(memory, {}, SIZE)
    inference.layout = Layout()
    inference.layout.offsets["vcpu.processor"] = PROCESSOR
    inference.vcpus = list(vcpus)
    inference.runstate()
    return inference.layout.get("vcpu.runstate")


def test_pcpus_that_were_switching() -> None:
    """Those that they were running are runnable already, the next ones are called running."""
    host = (
        vcpu(0, 0, 0, 0, other=True),
        vcpu(0, 1, 0, None, other=False),
        vcpu(1, 1, 1, 1, other=False),
        vcpu(0, 2, 1, 2, other=False),
        vcpu(1, 2, 0, None, other=False),
    )
    assert found(*host) == RUNSTATE


@pytest.mark.parametrize("processor", [1, 3])
def test_a_contradiction(processor: int) -> None:
    """Without a next vCPU on the same pCPU, the one that it was running must be called running."""
    host = (vcpu(0, 1, 1, 1, other=False), vcpu(1, processor, 0, None, other=False))
    assert found(*host) is None
