"""A file system with one file that has an unreadable range of bytes (EIO).

``python -m tests.engine.failing_fs FOLDER FILE FIRST END [direct]`` mounts it on FOLDER, serves
``FOLDER/file`` with the bytes of FILE until it is unmounted, and prints "ready" once mounted. With
``direct`` the file cannot be mapped. It implements the FUSE protocol (linux/fuse.h, version 7.31)
and must run in a separate process: a process that waits for a page of the file cannot serve it.
"""

import ctypes
import errno
import os
import stat
import struct
import sys
from collections.abc import Callable

HEADER = struct.Struct("<IIQQIIIHH")
REPLY = struct.Struct("<IiQ")
ATTR = struct.Struct("<6Q10I")
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE = 1, 2, 3, 14, 15, 18
FLUSH, INIT, OPENDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 25, 26, 27, 29, 36, 38, 42
ROOT, FILE = 1, 2
FOPEN_DIRECT_IO = 1


def serve(device: int, data: bytes, fails: range, direct: bool) -> None:
    """Serves requests until the file system is unmounted."""

    def attributes(node: int) -> bytes:
        size = 0 if node == ROOT else len(data)
        mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o644
        return ATTR.pack(node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def lookup(_: int, body: bytes) -> bytes:
        if body != b"file\0":
            raise FileNotFoundError(errno.ENOENT, "no such file")
        return struct.pack("<4Q2I", FILE, 0, 3600, 3600, 0, 0) + attributes(FILE)

    def getattr_(node: int, _: bytes) -> bytes:
        return struct.pack("<Q2I", 3600, 0, 0) + attributes(node)

    def open_(_: int, __: bytes) -> bytes:
        return struct.pack("<QII", 0, FOPEN_DIRECT_IO if direct else 0, 0)

    def read(_: int, body: bytes) -> bytes:
        offset, size = struct.unpack_from("<QI", body, 8)
        if offset < fails.stop and offset + size > fails.start:
            raise OSError(errno.EIO, "unreadable range")
        return data[offset : offset + size]

    def init(_: int, __: bytes) -> bytes:
        return struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, *[0] * 8)

    def nothing(_: int, __: bytes) -> bytes:
        return b""

    answers: dict[int, Callable[[int, bytes], bytes]] = {
        LOOKUP: lookup,
        GETATTR: getattr_,
        OPEN: open_,
        OPENDIR: nothing,
        READ: read,
        INIT: init,
        FLUSH: nothing,
        RELEASE: nothing,
        RELEASEDIR: nothing,
    }
    while True:
        try:
            request = os.read(device, 1 << 20)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            raise
        _, opcode, unique, node, *_ = HEADER.unpack_from(request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        answer, failed = b"", 0
        try:
            answer = answers[opcode](node, request[HEADER.size :])
        except KeyError:
            failed = errno.ENOSYS
        except OSError as error:
            failed = error.errno or errno.EIO
        os.write(device, REPLY.pack(REPLY.size + len(answer), -failed, unique) + answer)
        if opcode == DESTROY:
            return


def main() -> None:
    """Mounts, serves, unmounts."""
    folder, file, first, end, *how = sys.argv[1:]
    with open(file, "rb") as source:
        data = source.read()
    device = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"failing", folder.encode(), b"fuse.failing", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "cannot mount")
    print("ready", flush=True)
    serve(device, data, range(int(first), int(end)), "direct" in how)


if __name__ == "__main__":
    main()
