"""Renames of members and symbols by version; changes of structure are in the module that reads it.

One row per key. Its candidates are tried in order, the newest name first; the comment names the
version or commit of the rename. A name that is the same in all versions since 2.6.16 needs no row:
its key is the path itself (``task_struct.comm``).
"""

#: Candidates for the path of a member, newest first.
MEMBERS: dict[str, tuple[str, ...]] = {
    # 5.14, 2f064a59a11f: a volatile unsigned int __state in place of volatile long state.
    "task.state": ("task_struct.__state", "task_struct.state"),
    # 4.9 (c65eacbe290b) moved thread_info into task_struct, and made its cpu a member of
    # task_struct; 5.16 (bcf9033e5449) moved cpu back.
    "task.cpu": ("task_struct.thread_info.cpu", "task_struct.cpu"),
    # 2.6.22: void *stack in place of struct thread_info *thread_info.
    "task.stack": ("task_struct.stack", "task_struct.thread_info"),
    "thread.sp": (
        "task_struct.thread.sp",
        "task_struct.thread.esp",  # i386 before 2.6.25
        "task_struct.thread.rsp",  # x86_64 before 2.6.25
    ),
    "thread.ip": ("task_struct.thread.ip", "task_struct.thread.eip"),
    "task.parent": ("task_struct.real_parent", "task_struct.parent"),
    # _rss only during 2.6.15, then split into _file_rss and _anon_rss (see mm.py).
    "mm.rss": ("mm_struct.rss", "mm_struct._rss"),
    "timekeeper.seconds": ("timekeeper.xtime_sec", "timekeeper.xtime.tv_sec"),
    # struct runqueue until 2.6.18 (70b97a7f0b19).
    "rq.curr": ("rq.curr", "runqueue.curr"),
    "rq.idle": ("rq.idle", "runqueue.idle"),
    # The memory of a module: one range for its core until 6.3, in a struct since 4.5
    # (7523e4dc5057); since 6.4 (ac3b43283923) one range per type (see modules.py).
    "module.base": ("module.core_layout.base", "module.module_core"),
    "module.size": ("module.core_layout.size", "module.core_size"),
    "module.init_base": ("module.init_layout.base", "module.module_init"),
    "module.init_size": ("module.init_layout.size", "module.init_size"),
    # A task's node in the list of its struct pid: 4.19 (2c4704756cab) removed struct pid_link.
    "pid.link": ("task_struct.pid_links", "task_struct.pids"),
}

#: Candidates for a symbol, newest first.
SYMBOLS: dict[str, tuple[str, ...]] = {
    # 4.5: cpumask arrays, in place of bitmaps (2.6.28), in place of maps.
    "cpu_possible": ("__cpu_possible_mask", "cpu_possible_bits", "cpu_possible_map"),
    "cpu_present": ("__cpu_present_mask", "cpu_present_bits", "cpu_present_map"),
    "cpu_online": ("__cpu_online_mask", "cpu_online_bits", "cpu_online_map"),
    "cpu_active": ("__cpu_active_mask", "cpu_active_bits", "cpu_active_map"),
    # per-cpu symbols had a prefix before 2.6.33 (dd17c8f72993).
    "runqueues": ("runqueues", "per_cpu__runqueues"),
    # Its first member is current_task: 6.2 (c063a217bc07) to 6.14.
    "current": ("current_task", "pcpu_hot", "per_cpu__current_task"),
    # 4.13 (65ade2f872b4) renamed init_level4_pgt; i386 always had swapper_pg_dir.
    "swapper": ("init_top_pgt", "init_level4_pgt", "swapper_pg_dir"),
    # 2.6.27 renamed end_pfn on x86_64.
    "max_pfn": ("max_pfn", "end_pfn"),
    # 5.0, ca79b0c211af: atomics in place of plain variables; only i386 has high memory.
    "totalhigh_pages": ("_totalhigh_pages", "totalhigh_pages"),
    # It contains the time since 3.4; in tk_core since 3.17 (3fdb14fd1df7); the first element of an
    # array since 6.17.
    "timekeeper": ("timekeeper_data", "tk_core", "timekeeper"),
    # 2.6.28: a mask of type long in place of an int.
    "tainted": ("tainted_mask", "tainted"),
    # 4.15 (c482feefe1ae), 4.1 (24933b82c0d9); a per-cpu symbol with its prefix before 2.6.33.
    "tss": ("cpu_tss_rw", "cpu_tss", "init_tss", "per_cpu__init_tss"),
    # A namespace since 2.6.19 (4865ecf1315b).
    "uts": ("init_uts_ns", "system_utsname"),
}
# If more than a name changed, the module that reads the structure names the versions: printk/
# (formats of the log), tasklist.py (lists of threads), pids.py (tables of pids), mm.py (counters of
# resident pages), percpu.py (per-CPU areas), stacks.py (stacks of sleeping tasks), states.py (bits
# of states).
