"""The answers to gdb's packets."""

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from xml.sax.saxutils import escape, quoteattr

from ... import parsing
from ..._native import AbsentError
from ...isolation import isolated
from ...limits import MAX_GDB_PACKET
from ...session import Domain
from . import packets, registers
from .memory import Memory
from .monitor import Monitor
from .threads import Thread, Threads

#: EFAULT of gdb's file-I/O protocol, in hex: for memory that cannot be read.
_EFAULT = b"E0e"
#: Operations that a dump does not support, by their packets.
_REFUSED = {
    "a dump cannot be changed": ("G", "P", "M", "X"),
    "a dump cannot run": ("c", "C", "s", "S", "bc", "bs", "vCont;", "R", "r", "Z"),
}
_FEATURES = ";".join(
    (
        f"PacketSize={MAX_GDB_PACKET:x}",
        "QStartNoAckMode+",
        "qXfer:features:read+",
        "qXfer:threads:read+",
        "binary-upload+",
    )
)
#: Bytes of memory, and of a part of a document, in one packet.
_PART = MAX_GDB_PACKET // 2 - 8
#: Threads in a packet of their ids, which have up to 16 digits.
_IDS = MAX_GDB_PACKET // 17


class _RefusedError(Exception):
    """A request that cannot be met; gdb shows the message."""


class Session:
    """The session of one client. It has a selected thread, initially that of the panicking task."""

    def __init__(self, domain: Domain, threads: Threads, memory: Memory, monitor: Monitor) -> None:
        kernel = domain.kernel
        self._kernel = kernel
        self._threads = threads
        self._memory = memory
        self._monitor = monitor
        self._registers = registers.of(kernel.word)
        self._selected = threads.first
        #: The ids that qsThreadInfo still has to list.
        self._ids: Iterator[int] = iter(())
        #: Whether both sides acknowledge each packet.
        self.acknowledges = True
        #: Whether gdb has ended the session.
        self.is_over = False
        #: Whether the server is to end too.
        self.is_killed = False
        # The longest prefix that fits decides.
        handlers: dict[str, Callable[[str], bytes | Iterator[bytes]]] = {
            "qSupported": lambda _: packets.text(_FEATURES),
            "QStartNoAckMode": self._start_no_ack,
            "qXfer:features:read:target.xml:": lambda rest: self._part(self._description, rest),
            "qXfer:threads:read::": lambda rest: self._part(self._thread_list, rest),
            "qfThreadInfo": self._first_ids,
            "qsThreadInfo": lambda _: self._more_ids(),
            "qThreadExtraInfo,": self._extra_info,
            "qC": lambda _: b"QC%x" % self._selected.id,
            "qCRC:": lambda _: b"",  # unknown; not qC
            # The process was there before: gdb detaches at its end.
            "qAttached": lambda _: b"1",
            "qOffsets": lambda _: self._offsets(),
            "qSymbol:": lambda _: b"OK",
            "qRcmd,": self._command,
            "H": self._select,
            "T": lambda rest: b"OK" if self._thread(rest) else b"E01",
            "?": lambda _: b"T05thread:%x;" % self._selected.id,
            "g": lambda _: self._all_registers(),
            "p": self._register,
            "m": lambda rest: self._read(rest).hex().encode(),
            "x": lambda rest: b"b" + packets.escaped(self._read(rest)),
            "z": lambda _: b"OK",
            "D": self._end,
            "k": self._kill,
            "vKill": self._kill,
        }
        for why, prefixes in _REFUSED.items():
            handlers.update(dict.fromkeys(prefixes, self._refusal(why)))
        self._handlers = dict(sorted(handlers.items(), key=lambda item: -len(item[0])))

    def answers(self, packet: bytes) -> Iterator[bytes]:
        """The data of the packets that answer one; an empty packet if it is not known."""
        words = packet.decode("latin-1")
        handler, rest = self._find(words)
        if handler is None:
            yield b""
            return
        problems: list[str] = []
        with isolated("the server", problems.append):
            try:
                found = handler(rest)
                if isinstance(found, bytes):
                    yield found
                else:
                    yield from found
                return
            except _RefusedError as error:
                problems.append(str(error))
        for text in problems:
            # gdb 13 takes no text for an error of a read.
            yield _EFAULT if words[0] in "mx" else packets.text(f"E.{text}")

    def _find(self, words: str) -> tuple[Callable[[str], bytes | Iterator[bytes]] | None, str]:
        for prefix, handler in self._handlers.items():
            if words.startswith(prefix):
                return handler, words.removeprefix(prefix)
        return None, ""

    @staticmethod
    def _refusal(why: str) -> Callable[[str], bytes]:
        def refuse(_: str) -> bytes:
            raise _RefusedError(why)

        return refuse

    def _start_no_ack(self, _: str) -> Iterator[bytes]:
        yield b"OK"
        # gdb acknowledges this answer, and nothing after it.
        self.acknowledges = False

    def _end(self, _: str) -> bytes:
        self.is_over = True
        return b"OK"

    def _kill(self, _: str) -> bytes:
        self.is_over = self.is_killed = True
        return b"OK"

    # Documents

    @cached_property
    def _description(self) -> bytes:
        return registers.description(self._kernel.word).encode()

    @cached_property
    def _thread_list(self) -> bytes:
        lines = ['<?xml version="1.0"?>', "<threads>"]
        for thread in self._threads.all:
            core = "" if thread.cpu is None else f' core="{thread.cpu}"'
            text = escape(self._threads.described(thread))
            name = quoteattr(thread.name)
            lines.append(f'<thread id="{thread.id:x}"{core} name={name}>{text}</thread>')
        return "\n".join([*lines, "</threads>"]).encode("utf-8", "backslashreplace")

    def _part(self, document: bytes, rest: str) -> bytes:
        """A part of a document: the last one begins with l, others with m."""
        offset, size = _numbers(rest)
        end = offset + min(size, _PART)
        return (b"l" if end >= len(document) else b"m") + packets.escaped(document[offset:end])

    # Threads

    def _thread(self, number: str) -> Thread | None:
        """The thread of an id in hex; 0 and -1 mean any thread."""
        if number in ("0", "-1"):
            return self._selected
        return self._threads.get(_number(number) or 0)

    def _select(self, rest: str) -> bytes:
        # Hc is for continuing.
        thread = self._thread(rest[1:])
        if thread is None:
            raise _RefusedError("there is no such thread")
        if rest.startswith("g"):
            self._selected = thread
        return b"OK"

    def _first_ids(self, _: str) -> bytes:
        self._ids = (thread.id for thread in self._threads.all)
        return self._more_ids()

    def _more_ids(self) -> bytes:
        found = b",".join(b"%x" % number for number in islice(self._ids, _IDS))
        return b"m" + found if found else b"l"

    def _extra_info(self, rest: str) -> bytes:
        thread = self._thread(rest)
        if thread is None:
            raise _RefusedError("there is no such thread")
        return self._threads.described(thread).encode("utf-8", "backslashreplace").hex().encode()

    # Registers and memory

    def _all_registers(self) -> bytes:
        values = self._threads.state(self._selected).registers
        return b"".join(register.encode(values) for register in self._registers)

    def _register(self, rest: str) -> bytes:
        number = _number(rest)
        if number is None or number >= len(self._registers):
            raise _RefusedError("there is no such register")
        return self._registers[number].encode(self._threads.state(self._selected).registers)

    def _read(self, rest: str) -> bytes:
        address, size = _numbers(rest)
        if size == 0 or address > self._kernel.last:
            raise AbsentError("no such memory")
        return self._memory.read(self._selected.task, address, min(size, _PART))

    def _offsets(self) -> bytes:
        """Where the kernel's text is; gdb moves the rest of the vmlinux by as much."""
        slide, text = self._kernel.location.slide, self._kernel.symbols.get("_text")
        if slide == 0 or text is None:
            return b""
        return b"TextSeg=%x" % text

    # gdb's command monitor

    def _command(self, rest: str) -> Iterator[bytes]:
        try:
            line = bytes.fromhex(rest).decode("utf-8", "backslashreplace")
        except ValueError:
            raise _RefusedError("not a command in hex") from None
        for text in self._monitor.run(line, self._selected):
            data = f"{text}\n".encode("utf-8", "backslashreplace").hex().encode()
            for start in range(0, len(data), _PART * 2 - 2):
                yield b"O" + data[start : start + _PART * 2 - 2]
        yield b"OK"


def _number(text: str) -> int | None:
    """A number in hex."""
    found = parsing.number(text, 16)
    return None if found is None or found < 0 else found


def _numbers(text: str) -> tuple[int, int]:
    """The two numbers in ADDRESS,SIZE or OFFSET,SIZE."""
    first, _, second = text.partition(",")
    numbers = _number(first), _number(second)
    if numbers[0] is None or numbers[1] is None:
        raise _RefusedError("not two numbers in hex")
    return numbers[0], numbers[1]
