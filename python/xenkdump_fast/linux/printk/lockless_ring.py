"""printk's lockless ring buffer: 5.10 on (896fbe20b4e2).

A ring of descriptors, a ring of infos beside it, and a ring of text blocks that the descriptors
point into by logical positions, which count on for ever and are taken modulo the ring's size.
"""

from collections.abc import Iterator

from ..._native import AbsentError
from ...budget import Allowance
from ...isolation import isolated
from ..kernel import Kernel
from ..partial_buffer import PartialBuffer
from .message import Lines, LogLine, caller, decode

#: kernel/printk/printk_ringbuffer.h: a descriptor's state is in the top 2 bits of its state_var,
#: its id in the others.
_COMMITTED, _FINALIZED = 1, 2
#: Logical positions with this bit lead to no text: FAILED_LPOS (1) or EMPTY_LINE_LPOS (3).
_DATALESS = 1
_FAILED = 1
#: log_buf_len= takes up to 2 GiB, of which a descriptor stands for 32 bytes, but nobody keeps a log
#: of more than 64 MiB. They bound broken counts.
MAX_SIZE_BITS, MAX_COUNT_BITS = 26, 21
#: prb_desc takes 24 bytes, printk_info 88.
MAX_ITEM = 256


class _Ring:
    """The ring buffer at ``prb``, its parts read whole."""

    def __init__(self, kernel: Kernel) -> None:
        offset, word = kernel.types.offset, kernel.word
        prb = kernel.pointer(kernel.symbol("prb"))
        descs = prb + offset("printk_ringbuffer.desc_ring")
        text = prb + offset("printk_ringbuffer.text_data_ring")
        counter = offset("atomic_long_t.counter")
        count_bits = kernel.number(descs + offset("prb_desc_ring.count_bits"), 4)
        size_bits = kernel.number(text + offset("prb_data_ring.size_bits"), 4)
        if count_bits > MAX_COUNT_BITS or size_bits > MAX_SIZE_BITS:
            raise AbsentError(
                f"the log's ring buffer at {prb:#x} is overwritten: 2^{count_bits} descriptors, "
                f"2^{size_bits} bytes of text"
            )
        self.word = word
        self.count = 1 << count_bits
        self.size = 1 << size_bits
        self._kernel = kernel
        self.head = kernel.pointer(descs + offset("prb_desc_ring.head_id") + counter)
        self.tail = kernel.pointer(descs + offset("prb_desc_ring.tail_id") + counter)

        self._desc_size = kernel.types.sizeof("prb_desc")
        self._state = offset("prb_desc.state_var") + counter
        block = offset("prb_desc.text_blk_lpos")
        self._begin = block + offset("prb_data_blk_lpos.begin")
        self._next = block + offset("prb_data_blk_lpos.next")
        self._info_size = kernel.types.sizeof("printk_info")
        self._sequence = offset("printk_info.seq")
        self._time = offset("printk_info.ts_nsec")
        self._text_length = offset("printk_info.text_len")
        self._caller = offset("printk_info.caller_id")
        # u16 text_len, u8 facility, then 5 bits of flags and 3 of level: VMCOREINFO leaves the
        # last three out, and none has moved since 5.10.
        self._level = self._text_length + 3
        self._check()

        self._descs = PartialBuffer(
            kernel,
            kernel.pointer(descs + offset("prb_desc_ring.descs")),
            self.count * self._desc_size,
        )
        self._infos = PartialBuffer(
            kernel,
            kernel.pointer(descs + offset("prb_desc_ring.infos")),
            self.count * self._info_size,
        )
        self._text = PartialBuffer(
            kernel, kernel.pointer(text + offset("prb_data_ring.data")), self.size
        )
        missing = self._descs.missing + self._infos.missing + self._text.missing
        if missing:
            kernel.warn(f"{missing} bytes of the kernel's log are not in the dump")

    def _check(self) -> None:
        """Refuses sizes that none has."""
        desc = (self._state, self._begin, self._next)
        info = ((self._sequence, 8), (self._time, 8), (self._level, 1), (self._caller, 4))
        if not (
            all(0 <= at <= self._desc_size - self.word for at in desc)
            and all(0 <= at <= self._info_size - size for at, size in info)
            and max(self._desc_size, self._info_size) <= MAX_ITEM
        ):
            raise AbsentError(
                f"no printk_info has {self._info_size} bytes, or no prb_desc {self._desc_size}"
            )

    @property
    def id_mask(self) -> int:
        return (1 << (self.word * 8 - 2)) - 1

    def _desc(self, index: int, offset: int) -> int:
        at = index * self._desc_size + offset
        return int.from_bytes(self._descs.data[at : at + self.word], "little")

    def _info(self, index: int, offset: int, size: int) -> int:
        at = index * self._info_size + offset
        return int.from_bytes(self._infos.data[at : at + size], "little")

    def ids(self) -> set[int]:
        """The ids of whatever records the descriptors hold."""
        indexes = self._descs.whole_items(self._desc_size)
        return {self._desc(index, self._state) & self.id_mask for index in indexes}

    def lines(self) -> Iterator[LogLine]:
        """Every finished record."""
        # Blocks do not overlap.
        room = Allowance(self.size)
        for number in self._ordered():
            with isolated(f"message {number} of the kernel's log is left out", self._kernel.warn):
                line = self._line(number, room)
                if line is not None:
                    yield line

    def _ordered(self) -> list[int]:
        """The ids between the tail and the head; where those are damaged, all that there are.

        By the descriptors in the dump: how many there should be may be damaged, too.
        """
        between = (self.head - self.tail) & self.id_mask
        if between < self.count:
            after = ((number - self.tail) & self.id_mask for number in self.ids())
            return [(self.tail + i) & self.id_mask for i in sorted(after) if i <= between]
        self._kernel.warn(
            "the head and the tail of the kernel's log are damaged: its order is a guess"
        )
        return sorted(self.ids())

    def _line(self, number: int, room: Allowance) -> LogLine | None:
        """The record with that id; None if it is gone or was never finished."""
        index = number % self.count
        state = self._desc(index, self._state)
        if state & self.id_mask != number:
            return None
        if state >> (self.word * 8 - 2) not in (_COMMITTED, _FINALIZED):
            return None
        at = index * self._info_size
        if not self._infos.whole(at, at + self._info_size):
            return None
        begin, end = self._desc(index, self._begin), self._desc(index, self._next)
        text = self._block(begin, end, self._info(index, self._text_length, 2), room)
        return LogLine(
            sequence=self._info(index, self._sequence, 8),
            time=self._info(index, self._time, 8),
            caller=caller(self._info(index, self._caller, 4)),
            level=self._info(index, self._level, 1) >> 5,
            text=decode(text or b""),
            lost=text is None,
        )

    def _block(
        self, begin: int, end: int, length: int, room: Allowance
    ) -> bytes | bytearray | None:
        """The text of the block between two logical positions; None if it is lost."""
        if begin & _DATALESS and end & _DATALESS:
            return None if begin == _FAILED else b""
        first, last = begin % self.size, end % self.size
        if first == last:
            return b""
        if first > last:
            # A block never spans the ring's end: it starts anew at 0, unless it ends exactly
            # there (which counts as wrapped until 6.18, when no such block is made).
            exact = last == 0 and begin // self.size == (end - 1) // self.size
            first, last = (first, self.size) if exact else (0, last)
        first += self.word  # the id of its descriptor
        last = min(last, first + length)
        if not self._text.whole(first, last):
            return None
        text = self._text.data[first:last]
        if not room.take(len(text)):
            self._kernel.warn("texts of the kernel's log overlap: those that follow are left out")
            return None
        return text


def lines(kernel: Kernel) -> Lines:
    """Every finished record in the ring buffer."""
    return Lines(_Ring(kernel).lines)
