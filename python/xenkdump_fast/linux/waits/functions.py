"""Kinds of waits, by the functions on the stack."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..._native import Frame

#: The functions that wait, by kind, the first match is used. Compilers add suffixes, as in
#: ``__mutex_lock.constprop.0``.
_KINDS = (
    ("mutex", r"_*(ww_)?mutex_lock\w*"),
    ("rwsem", r"(call_)?rwsem_down_\w+|_*down_(read|write)(_killable|_interruptible|_nested)?"),
    ("percpu-rwsem", r"percpu_(down_write|rwsem_wait)|__percpu_(down_read|rwsem_wait)\w*"),
    ("semaphore", r"_*down(_common|_killable|_interruptible|_timeout)?"),
    ("rtmutex", r"_*rt_mutex_(slow)?lock\w*|rtlock_slowlock\w*|rt_(spin|read|write)_lock\w*"),
    ("completion", r"(__|do_)?wait_for_(completion\w*|common\w*)"),
    ("folio", r"_*folio_(wait|lock)\w*|wait_on_page_\w+|_*lock_page\w*"),
    ("bit", r"(out_of_line_)?_*wait_on_(bit|buffer)\w*|bit_wait\w*"),
    ("rcu", r"_*synchronize_s?rcu\w*|__wait_rcu_gp|s?rcu_barrier\w*"),
    ("I/O", r"io_schedule\w*|blk_mq_get_tag"),
)
#: Functions in which every sleeping task is.
_SCHEDULER = (
    r"(__switch_to\w*|_*schedule\w*|preempt_schedule\w*|context_switch|xen_\w*hypercall\w*|"
    r"_*wait_on_bit\w*|wait_woken|do_wait_intr\w*)(\.|$)"
)
#: Parts of the kernel that a wait belongs to, by a function on the stack.
_AREAS = (
    ("RCU", r"_*synchronize_s?rcu|__wait_rcu_gp|s?rcu_barrier"),
    ("workqueues", r"_*flush_(delayed_)?work|_*cancel_(delayed_)?work_sync"),
    ("xenbus", r"xenbus_|xs_|xb_|read_reply$"),
    ("blkback", r"xen_blkif_|xen_blkbk_|xen_vbd_|dispatch_rw_block_io"),
    ("blkfront", r"blkfront_|blkif_"),
    ("netback", r"xenvif_"),
    ("netfront", r"xennet_"),
    ("grants", r"_*gnttab_|gntdev_"),
    ("event channels", r"evtchn_|xen_evtchn_"),
    ("block I/O", r"submit_bio_wait|bio_|blk_|blkdev_|io_schedule|.*wait_on_buffer"),
)


class Wait(NamedTuple):
    """What the functions on a stack say."""

    #: One of ``_KINDS``; None if none of the functions is known.
    kind: str | None
    #: The innermost function outside the scheduler and what waits; None without one.
    caller: str | None
    #: The part of the kernel, of ``_AREAS``; None if no function tells.
    area: str | None
    #: Whether the frame of the kind is reliable.
    reliable: bool


def wait_of(frames: Sequence[Frame]) -> Wait:
    """The kind of wait by the innermost function that waits, and the caller of that."""
    kind, caller, reliable = None, None, True
    for frame in frames:
        name = frame.symbol
        if frame.user or name is None:
            continue
        found = next(
            (kind for kind, pattern in _KINDS if re.match(rf"(?:{pattern})(?:\.|$)", name)), None
        )
        if found is not None:
            if kind is None or kind == "I/O":
                # io_schedule() is how most functions wait for I/O.
                kind, reliable = found, not frame.guess
        elif not re.match(_SCHEDULER, name):
            caller = name
            break
        if frame.interrupted:
            break
    return Wait(kind, caller, _area(frames), reliable)


def _area(frames: Sequence[Frame]) -> str | None:
    for frame in frames:
        if frame.symbol is not None and not frame.user:
            for area, pattern in _AREAS:
                if re.match(pattern, frame.symbol):
                    return area
    return None
