"""The limits that bound work and memory on corrupt and hostile input.

The comment of each constant says what is limited, in which unit, and why real dumps stay below it.
Limits that scale with the dump are budgets (``budget.py``). ``tools/limits_table.py`` makes the
table in ``docs/trust.md`` from this file.
"""

# == Linux ==

#: Page-table roots from which one kernel is located. Each CPU has one; neither Xen nor Linux can be
#: built for more CPUs.
MAX_ROOTS = 1 << 14

#: KASLR offsets that are tried. A kernel has one; CPUs that disagree have damaged registers.
MAX_KASLR_OFFSETS = 8

#: Roots kept of those that map linux_banner to the same machine frame. All of them are the same
#: kernel's, but in a truncated dump some reach more memory than others.
MAX_ROOTS_PER_FRAME = 4

#: Roots without the kernel that the error message names.
MAX_REPORTED_ROOTS = 2

#: Bytes of machine memory that are searched for VMCOREINFO if no note has it. A dump by QEMU may
#: have terabytes.
MAX_VMCOREINFO_SEARCH = 8 << 30

#: Bytes of VMCOREINFO in memory. The kernel allocates one page for it (VMCOREINFO_BYTES).
MAX_VMCOREINFO = 4096

#: Characters of a VMCOREINFO note. A kernel with 64 KiB pages writes at most one of these.
MAX_VMCOREINFO_NOTE = 64 << 10

#: Bytes of a struct in VMCOREINFO. The largest, pglist_data, has 200 KiB with 1024 NUMA nodes.
MAX_STRUCT_SIZE = 1 << 20

#: Bytes of the kernel's note section. Linux 6.1 to 7.3 have about 500.
MAX_KERNEL_NOTES = 1 << 16

#: Bytes of linux_banner that are compared. Those seen have about 200.
MAX_LINUX_BANNER = 512

#: CPUs. Linux can be built for 8192 at most (CONFIG_NR_CPUS, MAXSMP).
MAX_CPUS = 8192

#: Entries of a linked list. No list has more than there can be pids.
MAX_LIST_ENTRIES = 1 << 22

#: pids (PID_MAX_LIMIT).
MAX_PIDS = 1 << 22

#: Binary logarithm of the buckets of pid_hash. Linux uses 4 to 12.
MAX_PID_HASH_BITS = 16

#: Slots of a node in the radix tree of pids: XA_CHUNK_SIZE is 64, or 16.
MAX_RADIX_SLOTS = 64

#: Levels of the radix tree of pids. With 16 slots per node, 2^22 pids need 6.
MAX_RADIX_LEVELS = 8

#: Names of states in task_state_array. No version has more than 12.
MAX_TASK_STATES = 16

#: Bytes of a kernel stack: THREAD_SIZE is 4 to 16 KiB, with KASAN 32.
MAX_STACK_SIZE = 64 << 10

#: Bytes of code in which the end of switch_to() is searched for (before 4.9).
MAX_RESUME_CODE = 65

#: Symbols used of those with the same name: a global function, and static ones.
MAX_SAME_SYMBOLS = 4

#: Bytes of NUMA nodes' pointers in node_data: 1024 nodes (CONFIG_NODES_SHIFT is at most 10).
MAX_NODE_DATA = 8192

#: Modules. Each has pages of its own between MODULES_VADDR and MODULES_END, at most 1.5 GiB
#: (pgtable_64_types.h).
MAX_MODULES = (1536 << 20) // 4096

#: Bytes of one table of a module. The largest modules have a few MiB of symbols.
MAX_MODULE_TABLE = 64 << 20

#: Bytes of the tables of all modules. 300 large modules have 30 MiB.
MAX_MODULE_TABLES = 256 << 20

#: Bytes of the ring buffer of printk. log_buf_len= permits up to 2 GiB, but the default is 128 KiB
#: to 2 MiB.
MAX_LOG_SIZE = 1 << 26

#: Descriptors of the lockless ring buffer of printk: one for each 32 bytes of MAX_LOG_SIZE.
MAX_LOG_DESCRIPTORS = 1 << 21

#: Bytes of a prb_desc or printk_info. Linux 7.3 has 24 and 112.
MAX_LOG_STRUCT = 256

#: Tasks from which the layout of task_struct is inferred. A few already decide each offset.
MAX_SAMPLED_TASKS = 4096

#: Bytes read in lists of tasks to infer layouts, each read counted as at least 256.
MAX_TASK_SAMPLE_READS = 4 << 30

#: The same as a multiple of the memory held. Each candidate offset for a list is one walk of three
#: reads per task, which has at least 6 KiB with its stack, and few offsets are of sound lists.
MAX_TASK_SAMPLE_WALKS = 16

#: Threads of one process in the sample.
MAX_SAMPLED_THREADS = 1 << 16

#: Bytes of a task_struct. Linux 6.12 has 9792.
MAX_TASK_STRUCT = 0x4000

#: Bytes of a thread_info. Before 4.9 it has up to 104.
MAX_THREAD_INFO = 0x80

#: Bytes of a run queue (struct rq). Linux 7.3 has 4736.
MAX_RUNQUEUE = 0x8000

#: Bytes of a timekeeper. Linux 7.3 has 320.
MAX_TIMEKEEPER = 0x1000

#: Words in an inactive_task_frame. No version saves more than 8.
MAX_INACTIVE_FRAME_WORDS = 12

#: Pages of one process: 256 TiB, all that 48 bits of address can map.
MAX_PROCESS_PAGES = 1 << 36

#: Modules from which the layout of struct module is inferred. A few already decide each offset.
MAX_SAMPLED_MODULES = 4096

#: Symbols of a module in the sample.
MAX_SAMPLED_SYMBOLS = 1 << 20

#: Bytes of text of a module in the sample.
MAX_SAMPLED_MODULE_TEXT = 1 << 28
