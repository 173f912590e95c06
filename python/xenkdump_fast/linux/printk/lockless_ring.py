"""printk's lockless ring buffer: 5.10 on (896fbe20b4e2).

A ring of descriptors, a parallel ring of infos, and a ring of text blocks. Descriptors refer to
text by logical positions, which only increase and are taken modulo the size of the ring.
"""

import struct
from collections.abc import Iterator

from ..._native import AbsentError
from ...budget import Budget, BudgetExceededError
from ...isolation import isolated
from ...limits import MAX_LOG_DESCRIPTORS, MAX_LOG_SAMPLE, MAX_LOG_SIZE, MAX_LOG_STRUCT
from ..kernel import Kernel
from ..partial_buffer import PartialBuffer
from .message import Lines, LogLine, caller, decode

#: kernel/printk/printk_ringbuffer.h: a descriptor's state is in the top 2 bits of its state_var,
#: its id in the others.
_COMMITTED, _FINALIZED = 1, 2
#: Logical positions with this bit have no text: FAILED_LPOS (1) or EMPTY_LINE_LPOS (3).
_DATALESS = 1
_FAILED = 1
#: Records that are needed to judge the format.
_MIN_SAMPLE = 8


class _Ring:
    """The ring buffer at ``prb``, with all parts read."""

    def __init__(self, kernel: Kernel) -> None:
        offset, word = kernel.types.offset, kernel.word
        prb = kernel.pointer(kernel.symbol("prb"))
        descs = prb + offset("printk_ringbuffer.desc_ring")
        text = prb + offset("printk_ringbuffer.text_data_ring")
        counter = offset("atomic_long_t.counter")
        count_bits = kernel.number(descs + offset("prb_desc_ring.count_bits"), 4)
        size_bits = kernel.number(text + offset("prb_data_ring.size_bits"), 4)
        bits = MAX_LOG_DESCRIPTORS.bit_length(), MAX_LOG_SIZE.bit_length()
        if count_bits >= bits[0] or size_bits >= bits[1]:
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
        self._level, self._level_shift = self._place_of_level()
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

    def _place_of_level(self) -> tuple[int | None, int]:
        """Offset of the byte with the level, and its lowest bit in it; None if it is not known.

        u16 text_len, u8 facility, then 5 bits of flags and 3 of level: VMCOREINFO lacks the last
        three, which have not moved since 5.10.
        """
        if self._kernel.types.native is None:
            return self._text_length + 3, 5
        try:
            level = self._kernel.member("printk_info.level")
        except AbsentError:
            self._kernel.warn("the levels of messages are not known: printk_info has none")
            return None, 0
        first = level.bit_offset or 0
        return level.offset + first // 8, first % 8

    def verify(self) -> None:
        """Compares a sample of the records with properties of every known version.

        The number of a record is, modulo the number of descriptors, the index of its descriptor,
        and a block of text starts with the descriptor's id.
        """
        step = max(1, self.count // MAX_LOG_SAMPLE)
        used = finished = wrong = 0
        for index in range(0, self.count, step):
            at = index * self._info_size
            state = self._desc(index, self._state)
            number = state & self.id_mask
            # Descriptors that were never used are 0.
            if not state or (number - self.tail) & self.id_mask >= self.count:
                continue
            used += 1
            if state >> (self.word * 8 - 2) not in (_COMMITTED, _FINALIZED):
                continue
            finished += 1
            if self._infos.is_complete(at, at + self._info_size):
                sequence = self._info(index, self._sequence, 8)
                fits = number % self.count == sequence % self.count == index
                wrong += not (fits and self._has_own_block(index, number))
        if used >= _MIN_SAMPLE and (finished * 2 < used or wrong * 10 > finished):
            self._kernel.warn(
                f"the kernel's log does not have a known format: of {used} records, {finished} are "
                f"finished, and {wrong} of those are inconsistent; messages may be wrong or missing"
            )

    def _has_own_block(self, index: int, number: int) -> bool:
        """Whether the block of a record starts with its id, if it is in the dump."""
        begin, end = self._desc(index, self._begin), self._desc(index, self._next)
        if begin & _DATALESS or begin == end:
            return True
        first = begin % self.size
        if begin // self.size != (end - 1) // self.size:
            first = 0
        if not self._text.is_complete(first, first + self.word):
            return True
        return int.from_bytes(self._text.data[first : first + self.word], "little") == number

    def _check(self) -> None:
        """Rejects layouts that no version has."""
        desc = (self._state, self._begin, self._next)
        info = [(self._sequence, 8), (self._time, 8), (self._caller, 4), (self._text_length, 2)]
        if self._level is not None:
            info.append((self._level, 1))
        if not (
            all(0 <= at <= self._desc_size - self.word for at in desc)
            and all(0 <= at <= self._info_size - size for at, size in info)
            and max(self._desc_size, self._info_size) <= MAX_LOG_STRUCT
        ):
            raise AbsentError(
                f"invalid layout of printk_info ({self._info_size} bytes) or prb_desc "
                f"({self._desc_size} bytes)"
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
        """The ids of the records in the descriptors."""
        rest = self._desc_size - self._state - self.word
        form = f"<{self._state}x{'Q' if self.word == 8 else 'I'}{rest}x"
        whole = len(self._descs.data) // self._desc_size * self._desc_size
        states = [state for (state,) in struct.iter_unpack(form, self._descs.data[:whole])]
        mask = self.id_mask
        return {states[i] & mask for i in self._descs.complete_items(self._desc_size)}

    def lines(self) -> Iterator[LogLine]:
        """Every finished record."""
        # Text blocks do not overlap.
        budget = Budget("messages of the kernel's log", self.size)
        for number in self._ordered():
            with isolated(
                f"message {number} of the kernel's log cannot be read", self._kernel.warn
            ):
                line = self._line(number, budget)
                if line is not None:
                    yield line

    def _ordered(self) -> list[int]:
        """The ids from the tail to the head; all ids, if these two are damaged.

        Only ids in the descriptors count, since the number of records may be damaged, too.
        """
        between = (self.head - self.tail) & self.id_mask
        if between < self.count:
            after = ((number - self.tail) & self.id_mask for number in self.ids())
            return [(self.tail + i) & self.id_mask for i in sorted(after) if i <= between]
        self._kernel.warn(
            "the head and the tail of the kernel's log are damaged: its order is unreliable"
        )
        return sorted(self.ids())

    def _line(self, number: int, budget: Budget) -> LogLine | None:
        """The record with that id; None if it was overwritten or never finished."""
        index = number % self.count
        state = self._desc(index, self._state)
        if state & self.id_mask != number:
            return None
        if state >> (self.word * 8 - 2) not in (_COMMITTED, _FINALIZED):
            return None
        at = index * self._info_size
        if not self._infos.is_complete(at, at + self._info_size):
            return None
        begin, end = self._desc(index, self._begin), self._desc(index, self._next)
        text = self._block(begin, end, self._info(index, self._text_length, 2), budget)
        return LogLine(
            sequence=self._info(index, self._sequence, 8),
            time=self._info(index, self._time, 8),
            caller=caller(self._info(index, self._caller, 4)),
            level=None
            if self._level is None
            else self._info(index, self._level, 1) >> self._level_shift & 7,
            text=decode(text or b""),
            lost=text is None,
        )

    def _block(self, begin: int, end: int, length: int, budget: Budget) -> bytes | bytearray | None:
        """The text of the block between two logical positions; None if it is lost."""
        if begin & _DATALESS and end & _DATALESS:
            return None if begin == _FAILED else b""
        first, last = begin % self.size, end % self.size
        if first == last:
            return b""
        if first > last:
            # A block does not cross the ring's end: it starts at 0 instead, unless it ends exactly
            # there, which counts as wrapped (6.18 no longer makes such blocks).
            exact = last == 0 and begin // self.size == (end - 1) // self.size
            first, last = (first, self.size) if exact else (0, last)
        first += self.word  # the id of its descriptor
        last = min(last, first + length)
        if not self._text.is_complete(first, last):
            return None
        text = self._text.data[first:last]
        try:
            budget.spend(len(text))
        except BudgetExceededError:
            self._kernel.warn("messages of the kernel's log overlap: text of later ones is lost")
            return None
        return text


def lines(kernel: Kernel) -> Lines:
    """Every finished record in the ring buffer."""
    ring = _Ring(kernel)
    ring.verify()
    return Lines(ring.lines)
