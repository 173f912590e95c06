"""The limits of linux/, xen/ and the output on corrupt and hostile input; limits.rs has the core's.

The comment of each constant says what is limited, in which unit, and why real dumps stay below it.
Limits that scale with the dump are budgets (``budget.py``). ``tools/limits_table.py`` makes the
table in ``docs/trust.md`` from this file.
"""

# == Compressed files ==

#: Unpacked size of a file that is compressed as a whole, as a multiple of its compressed size. The
#: memory of an idle machine may have a ratio of 300.
MAX_UNPACKED_RATIO = 1024

#: Unpacked bytes of a file that are always permitted, however small it is. Zeros take no space on
#: disk.
MAX_UNPACKED_SMALL = 64 << 30

#: Bytes of memory for the decoder of xz. Its default settings take 9 MiB, the largest ones 65.
MAX_DECODER_MEMORY = 256 << 20

#: Bytes of the index of an xz file, which contains the unpacked size. A dump of 1 TiB has 400 KiB.
MAX_XZ_INDEX = 16 << 20

# == Linux ==

#: VMCOREINFO notes that are used. A dump has one; one by a capture kernel may have two.
MAX_VMCOREINFO_NOTES = 8

#: Bytes of the kernel's part of address spaces that are searched for linux_banner. The image of one
#: kernel has up to 100 MiB, and page tables map at most 1 GiB for it.
MAX_BANNER_SEARCH = 2 << 30

#: Copies of linux_banner that are examined. Memory has one in the kernel and a few in logs.
MAX_BANNER_COPIES = 64

#: Page-table roots from which one kernel is searched for. Each CPU has one, and neither Xen nor
#: Linux can be built for more CPUs.
MAX_ROOTS = 1 << 14

#: Page-table roots that are searched for kernels without a vmlinux. The first one leads to the
#: kernel, unless its page tables are damaged.
MAX_IMAGE_ROOTS = 64

#: KASLR offsets that are tried. A kernel has one; CPUs that disagree have damaged registers.
MAX_KASLR_OFFSETS = 8

#: Roots kept of those that map linux_banner to the same machine frame. All of them belong to the
#: same kernel, but in a truncated dump some reach more memory than others.
MAX_ROOTS_PER_FRAME = 4

#: Roots without the kernel that the error message names.
MAX_REPORTED_ROOTS = 2

#: Bytes of machine memory that are searched for VMCOREINFO if no note has it. A dump by QEMU may
#: have terabytes.
MAX_VMCOREINFO_SEARCH = 8 << 30

#: Bytes of a per-CPU area around an exported variable that are searched for the idle task. Areas of
#: Linux 6.1 to 7.3 have 100 to 250 KiB.
MAX_PER_CPU_SEARCH = 1 << 19

#: Bytes from the end of a kernel's code to its init code that are searched for variables by their
#: contents. Linux 6.1 to 7.3 have 10 to 20 MiB.
MAX_KERNEL_DATA = 64 << 20

#: Bytes of VMCOREINFO in memory. The kernel allocates one page for it (VMCOREINFO_BYTES).
MAX_VMCOREINFO = 4096

#: Characters of a VMCOREINFO note. A kernel with 64 KiB pages writes at most one of these.
MAX_VMCOREINFO_NOTE = 64 << 10

#: Bytes of a struct in VMCOREINFO. The largest, pglist_data, has 200 KiB with 1024 NUMA nodes.
MAX_STRUCT_SIZE = 1 << 20

#: Bytes of the kernel's BTF that are read from memory. Linux 7.3 has 6 MiB.
MAX_BTF_SIZE = 64 << 20

#: Bytes of the kernel's note section. Linux 6.1 to 7.3 have about 500.
MAX_KERNEL_NOTES = 1 << 16

#: Symbols of a System.map that are compared with the kernel's own table, evenly spaced.
MAX_COMPARED_SYMBOLS = 1 << 12

#: Bytes of a file with debug information whose checksum is computed. Those of kernels have 500 MiB.
MAX_DEBUG_FILE = 4 << 30

#: Bytes of ``.gnu_debuglink`` that are read: a name of a file, and a checksum.
MAX_DEBUG_LINK = 4096

#: Bytes of linux_banner that are compared. Those seen have about 200.
MAX_LINUX_BANNER = 512

#: Page-table roots of processes below which a domain's page tables are searched for: pids have 22
#: bits.
MAX_PROCESS_ROOTS = 1 << 22

#: CPUs. Linux can be built for 8192 at most (CONFIG_NR_CPUS, MAXSMP).
MAX_CPUS = 8192

#: Bytes of the arguments of a process that are read. Linux limits them to a quarter of the stack.
MAX_ARGUMENTS = 2 << 20

#: Dentries and mounts above each other in a path.
MAX_PATH_DEPTH = 512

#: Dentries and mounts that all paths of a command lead through, each as often as a path does. A
#: million open files have 8 million. Mounts in a loop take the depth for each file.
MAX_PATH_STEPS = 1 << 26

#: Bytes of all paths that a command reads together. A million open files have 50 MB.
MAX_PATHS_SIZE = 1 << 28

#: Descriptors in all tables together.
MAX_OPEN_FILES = 1 << 24

#: Bytes that each of `mount`, `net`, `dev`, `ipcs` and `swap` reads. A host with thousands of
#: containers has 50,000 mounts; each costs 4 KiB, including its names.
MAX_DEVICES_READ = 1 << 29

#: log2 of the buckets of the ARP table. It starts at 3 and grows with the number of neighbours, by
#: default at most 1024.
MAX_NEIGHBOUR_BITS = 20

#: Tags in use of a disk, and words of the bitmaps of tags. A disk has a hardware queue per CPU with
#: 1024 tags, few of which are in use.
MAX_DISK_TAGS = 1 << 18

#: Nested PCI buses. A bus number has 8 bits, and each level needs one more bus.
MAX_PCI_DEPTH = 256

#: Nested resources. Each level is a bus, a device or a driver.
MAX_RESOURCE_DEPTH = 64

#: Swap devices: MAX_SWAPFILES_SHIFT is 5.
MAX_SWAP_DEVICES = 32

#: Inodes on the lists of dirty ones. Each has 600 bytes.
MAX_DIRTY_INODES = 1 << 22

#: Structs with lists of dirty inodes: one for each device and memory cgroup that writes to it.
MAX_WRITEBACKS = 1 << 16

#: Mounts of a namespace. The default of the sysctl fs.mount-max is 100,000.
MAX_MOUNTS = 1 << 18

#: Network devices of a namespace. A host with thousands of containers has one or two for each.
MAX_NETWORK_DEVICES = 1 << 16

#: IPv4 addresses of the network devices of a namespace, and as many IPv6 addresses.
MAX_NETWORK_ADDRESSES = 1 << 18

#: Ranges of numbers of character devices, and majors of block devices. There are 512 majors.
MAX_DEVICE_RANGES = 1 << 12

#: Character devices that are registered for numbers. Each input device and each disk may have one.
MAX_DEVICE_PROBES = 1 << 17

#: Bytes that ``rd`` reads at once.
MAX_RD_SIZE = 64 << 20

#: Bytes of code that ``dis`` disassembles at once. The longest function of Linux has 0.1 MB.
MAX_DIS_SIZE = 4 << 20

#: Nested anonymous structs and unions that are searched for a member.
MAX_ANONYMOUS_DEPTH = 16

#: Characters of an expression.
MAX_EXPRESSION = 4096

#: Nested operators and parentheses in an expression.
MAX_EXPRESSION_DEPTH = 50

#: Nested structs that are printed.
MAX_STRUCT_DEPTH = 64

#: Parts of values and definitions that one command prints: members, elements, enumerators. A
#: damaged struct may contain itself; a task_struct has 1000.
MAX_PRINTED_PARTS = 1 << 19

#: Characters of an array that are read to print it.
MAX_PRINTED_CHARACTERS = 64 << 20

#: Bits of a number: no integer of C has more.
MAX_NUMBER_BITS = 128

#: Types whose properties are cached.
MAX_CACHED_TYPES = 8192

#: Bytes of an object that are read at once before it is printed.
MAX_READ_AHEAD = 1 << 20

#: Elements of an array that are printed.
MAX_PRINTED_ELEMENTS = 200

#: Entries of a linked list. No list has more than there can be pids.
MAX_LIST_ENTRIES = 1 << 22

#: Entries of lists of structs that are read before the first check that no two of them overlap.
MAX_FIRST_WALK = 1 << 14

#: Waiters for one lock that are examined. Each is a task.
MAX_WAITERS = 1 << 16

#: Nodes of RCU's tree: 8192 CPUs need 512 leaves and 33 nodes above them.
MAX_RCU_NODES = 1024

#: Bytes read to find out what sleeping tasks wait for: for each task, the used part of its stack
#: and the lists that it is in.
MAX_WAITS_READ = 1 << 30

#: Bytes read for the virtual memory areas of processes. An area takes about 256, and 10,000
#: processes have a few hundred each at most.
MAX_ADDRESS_MAP_READ = 1 << 30

#: Bytes read for the run queues of all CPUs. A queued task costs about 2 KiB in small reads:
#: 100,000 of them 200 MiB.
MAX_RUN_QUEUE_READ = 512 << 20

#: Queued realtime tasks and groups of all CPUs.
MAX_REALTIME_ENTITIES = 1 << 18

#: Priorities of realtime tasks (MAX_RT_PRIO).
MAX_RT_PRIORITIES = 100

#: Nested task groups. Each is a cgroup, and a path has at most 4096 characters.
MAX_TASK_GROUP_DEPTH = 256

#: Sizes of huge pages (HUGE_MAX_HSTATE is 2).
MAX_HUGE_PAGE_SIZES = 8

#: Swap files and devices (MAX_SWAPFILES is 23 to 32).
MAX_SWAP_FILES = 32

#: Address spaces of a swap file, one for each 64 MiB of it: 4 TiB.
MAX_SWAPPER_SPACES = 1 << 16

#: Interrupts. x86 has at most 8192 * 64 + 4096 (NR_IRQS).
MAX_IRQS = 1 << 20

#: Handlers of one interrupt.
MAX_IRQ_ACTIONS = 1 << 10

#: Bytes read to find the descriptors of all interrupts: a tree of pointers.
MAX_INTERRUPT_READ = 256 << 20

#: Softirqs (NR_SOFTIRQS is 10).
MAX_SOFTIRQS = 32

#: Bytes read for timers. A timer costs about 512 in small reads: a million of them 512 MiB.
MAX_TIMER_READ = 1 << 30

#: Timers in the wheels of all CPUs, and the same number of high-resolution timers. A host with
#: 100,000 connections has about as many timers as connections.
MAX_TIMERS = 1 << 20

#: Timer bases of a CPU (NR_BASES is at most 3), and clocks of high-resolution timers (8).
MAX_TIMER_BASES = 16

#: Lists in a timer base (WHEEL_SIZE is 512 or 576).
MAX_TIMER_LISTS = 1 << 12

#: pids (PID_MAX_LIMIT).
MAX_PIDS = 1 << 22

#: Binary logarithm of the buckets of pid_hash. Linux uses 4 to 12.
MAX_PID_HASH_BITS = 16

#: Slots of a node in the radix tree of pids: XA_CHUNK_SIZE is 64, or 16.
MAX_RADIX_SLOTS = 64

#: Levels of the radix tree of pids. With 16 slots per node, 2^22 pids need 6.
MAX_RADIX_LEVELS = 8

#: Nodes of a tree that `tree` prints.
MAX_TREE_NODES = 1 << 20

#: Levels of a red-black tree: at most twice the binary logarithm of the number of nodes.
MAX_TREE_DEPTH = 64

#: Levels of a maple tree. Each node but the root has at least four entries.
MAX_MAPLE_DEPTH = 32

#: Entries that `list` follows.
MAX_FOLLOWED_ENTRIES = 1 << 20

#: Names of states in task_state_array. No version has more than 12.
MAX_TASK_STATES = 16

#: Bytes of a kernel stack: THREAD_SIZE is 4 to 16 KiB, with KASAN 32.
MAX_STACK_SIZE = 64 << 10

#: Bytes of code that are searched for the end of switch_to() (before 4.9).
MAX_RESUME_CODE = 65

#: Bytes of the function of Xen that saves a pCPU's registers.
MAX_SAVING_CODE = 0x1000

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

#: Records of the log that verify its format.
MAX_LOG_SAMPLE = 256

#: Bytes of a prb_desc or printk_info. Linux 7.3 has 24 and 112.
MAX_LOG_STRUCT = 256

#: Tasks from which the layout of task_struct is inferred. A few already decide each offset.
MAX_SAMPLED_TASKS = 4096

#: Bytes read in lists of tasks to infer layouts, each read counted as at least 256.
MAX_TASK_SAMPLE_READS = 4 << 30

#: The same limit as a multiple of the memory held. Each candidate offset of a list costs one walk
#: of three reads per task. A task takes at least 6 KiB with its stack, and few offsets lead to
#: intact lists.
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

#: Pages of one process on i386: 4 GiB.
MAX_PROCESS_PAGES_32 = 1 << 20

#: mm_structs of processes whose contents are cached, for threads that share one.
MAX_KNOWN_MMS = 1 << 13

#: Modules from which the layout of struct module is inferred. A few already decide each offset.
MAX_SAMPLED_MODULES = 4096

#: Modules that are searched for the members with symbols (before 4.5).
MAX_SAMPLED_SYMTABS = 64

#: Bytes of a struct module. Linux 2.6.18 has a cache line for each possible CPU in it.
MAX_MODULE_STRUCT = 0x10000

#: Symbols of a module in the sample.
MAX_SAMPLED_SYMBOLS = 1 << 20

#: Bytes of text of a module in the sample.
MAX_SAMPLED_MODULE_TEXT = 1 << 28

# == Xen ==

#: pCPUs. Xen can be built for 16383 at most (CONFIG_NR_CPUS).
MAX_PCPUS = 1 << 14

#: Page-table roots of other pCPUs that are tried if a pCPU's own is missing. Each of them maps Xen.
MAX_OTHER_ROOTS = 8

#: Characters of all VMCOREINFO_XEN notes together. Xen writes at most a page (VMCOREINFO_BYTES).
MAX_VMCOREINFO_XEN = 64 << 10

#: Bytes of a string that CRASH_INFO points to. The longest seen is a compiler's name of 60.
MAX_CRASH_INFO_STRING = 256

#: Bytes of Xen's command line: the size of saved_cmdline.
MAX_XEN_COMMAND_LINE = 1024

#: Domains in Xen's list: the number of ids below the first reserved one (DOMID_FIRST_RESERVED).
MAX_DOMAINS = 0x7FF0

#: Bytes of a struct domain. Xen allocates one page for it.
MAX_DOMAIN_SIZE = 16 << 12

#: Bytes read in the search for domains that only pCPUs lead to. Each costs ten structs and the
#: targets of a thousand pointers in them. A damaged list misses a few domains.
MAX_DOMAIN_SEARCH = 16 << 20

#: vCPUs of a domain. A PV domain can have 8192, an HVM domain 128 (HVM_MAX_VCPUS).
MAX_VCPUS = 8192

#: Bytes of a struct vcpu. In Xen 3 it held a guest context, of 2800 or 5168 bytes.
MAX_VCPU_SIZE = 2 << 12

#: Pages that Xen's variables point to and that may be a struct domain, in a dump without the
#: address of the domain list. domain_hash has 256 buckets; all of Xen's variables on the hosts
#: tested have fewer than 1,000 such pointers.
MAX_DOMAIN_CANDIDATES = 10_000

#: Bytes read in the search for such variables: twice Xen's image, and the targets of the pointers
#: in MAX_DOMAIN_CANDIDATES structs of a page, most of which have few pointers.
MAX_VARIABLES_SEARCH = 128 << 20

#: Bytes of a struct vcpu in which its pointer to the domain is searched for. All versions have it
#: among the first ten members.
MAX_VCPU_DOMAIN_OFFSET = 0x100

#: Bytes read for the vCPUs of all domains, as a multiple of the memory held. Each struct vcpu has
#: at least 2 KiB and is read twice.
MAX_VCPU_READS = 2

#: Domains from which layouts are inferred. A few already decide each offset.
MAX_SAMPLED_DOMAINS = 16

#: vCPUs of each of these domains from which layouts are inferred.
MAX_SAMPLED_VCPUS = 16

#: Further vCPUs from which layouts are inferred: those that were running.
MAX_SAMPLED_RUNNING = 256

#: Structs that point back to one domain and are compared with a struct vcpu.
MAX_VCPU_CANDIDATES = 64

#: Bytes of a mask of pCPUs, one bit for each that Xen can be built for.
MAX_CPU_MASK = MAX_PCPUS // 8

#: Entries of one of Xen's lists, such as a run queue: less than the vCPUs of 100 large domains.
MAX_XEN_LIST = 1 << 16

#: Bytes read for the details of a domain. Each vCPU has 10 small members, and a read counts as 256
#: bytes: MAX_VCPUS of them take 20 MiB.
MAX_DETAILS_READ = 64 << 20

#: Bytes read for the details of pCPUs. Each has 20 small members: MAX_PCPUS of them take 80 MiB.
MAX_PCPU_READS = 128 << 20

#: Bytes read for locks. Each domain has some dozen, and one for each vCPU.
MAX_LOCK_READS = 128 << 20

#: Bytes read for the timers of all pCPUs. Each has a heap of some dozen.
MAX_TIMER_READS = 128 << 20

#: Bytes of the name of a scheduler. The longest is "arinc653".
MAX_SCHEDULER_NAME = 32

#: Bytes read for run queues. Each vCPU that waits has 10 small members.
MAX_SCHEDULER_READS = 256 << 20

#: Event channels of a domain, with FIFO event channels (EVTCHN_FIFO_NR_CHANNELS).
MAX_EVENT_CHANNELS = 1 << 17

#: Bytes read for the event channels of all domains. A thousand domains of a thousand channels have
#: 64 MiB.
MAX_EVENT_CHANNEL_READS = 512 << 20

#: Damaged event channels or grants of a domain that warnings name.
MAX_LISTED_PROBLEMS = 16

#: Entries of a grant table. The toolstack's default is 64 frames of 512 entries.
MAX_GRANTS = 1 << 20

#: Bytes read for the grant tables of all domains. A thousand domains with five frames each have 120
#: MiB, and few have more than two.
MAX_GRANT_READS = 256 << 20

#: Buckets of a table of event channels that are compared with their ports to infer a layout.
MAX_INFERRED_BUCKETS = 16

#: Grants of a domain that are compared with the frame table to infer a layout.
MAX_INFERRED_GRANTS = 1 << 14

#: Bytes read to infer the layout of event channels, grant tables or run queues. Each of 16 domains
#: may have 500 pointers to a page that may be a bucket.
MAX_INFERENCE_READS = 256 << 20

#: Machine frames: 4 PiB of memory. x86 processors have 52 bits of physical address.
MAX_MACHINE_FRAMES = 1 << 40

#: Blocks of the frame table in the sample that estimates how many pages each domain owns.
MAX_SAMPLED_BLOCKS = 512

#: Entries in each of these blocks.
MAX_BLOCK_ENTRIES = 64

#: Entries of the frame table that are read in one call.
MAX_ENTRIES_AT_ONCE = 1 << 14

#: Start addresses of the direct map that are tried. With compressed frame numbers (PDX) each NUMA
#: node has one.
MAX_DIRECT_MAP_STARTS = 64

#: Domains whose struct is searched for the count of pages: those with the most pages, and the first
#: ones.
MAX_COUNTED_DOMAINS = 128

#: Bytes of all searches for kernels, as a multiple of the memory held. A page belongs to one
#: kernel, two strings are searched for, and the first root may be another kernel's.
MAX_KERNEL_SEARCHES = 4

#: Bytes of these searches that are always permitted. A small dump may hold a few bytes of each
#: page, but whole pages are charged.
MAX_SMALL_SEARCHES = 64 << 20

#: Pages of a domain that are examined to find out whether the dump excludes its memory.
MAX_LEFT_OUT_PAGES = 64

#: Bytes of a kernel's image in which its name is searched for. The largest images have 100 MiB.
MAX_KERNEL_IMAGE = 256 << 20

#: Banners of a kernel that are compared, and uts structs. Page caches hold further copies.
MAX_KERNEL_CANDIDATES = 64

#: Bytes of a kernel's banner. With the compiler's version it has about 200.
MAX_BANNER = 512

#: Machine frames of a translated guest in which its kernel is searched for: 2 GiB. The kernel is
#: loaded at a low address.
MAX_GUEST_FRAMES = 1 << 19

#: Bytes of the frames of all translated guests whose kernels are not found by their page tables.
MAX_FRAME_SEARCH = 64 << 30

#: Bytes that a search for one kernel reads before the mapped pages of the file are unmapped.
#: Otherwise those of hundreds of kernels would count as memory of this process.
MAX_UNRELEASED = 1 << 20

#: Single reads of Xen's memory before the mapped pages of the file are unmapped. The system maps 16
#: pages for each.
MAX_UNRELEASED_XEN_READS = 1 << 10

#: Translated guests whose roots are verified before the mapped pages of the file are unmapped. Each
#: costs MAX_NESTED_SAMPLE pages of two tables, and the system maps 16 pages for each.
MAX_UNRELEASED_ROOTS = 8

#: pfns of a P2M that a kernel's own variables describe: 512 TiB of memory.
MAX_PFNS = 1 << 37

#: CRASH_INFO notes whose frame list is tried. Xen writes one.
MAX_CRASH_INFO_NOTES = 8

#: Roots whose kernel's own P2M is tried. dom0's is one of the first that lead to its kernel.
MAX_CR3_SOURCES = 64

#: Roots under which Xen's M2P is searched for. Each root of a PV domain maps it, and a domain has
#: at most as many vCPUs.
MAX_M2P_ROOTS = 8192

#: Frames that are compared to recognise the M2P.
MAX_M2P_SAMPLE = 512

#: Structs that a struct domain points to and that point back to it, in which the root of a
#: translated guest's page tables is searched for. Xen 4.20 has a few dozen, with up to 21
#: p2m_domains.
MAX_P2M_STRUCTS = 128

#: Bytes of Xen's memory that are read to find the root of one translated guest's page tables.
MAX_P2M_SEARCH = 16 << 20

#: Bytes of a struct p2m_domain. Xen 4.20's has about 700.
MAX_P2M_STRUCT = 2048

#: Candidates that are tried as the root of a translated guest's page tables.
MAX_NESTED_CANDIDATES = 64

#: Frames of a translated guest that are compared with the frame table and the M2P to verify its
#: root. Each reads a page of both tables.
MAX_NESTED_SAMPLE = 64

#: Page tables of a translated guest whose owners are looked up to verify their root.
MAX_NESTED_TABLES = 64

#: Reasons for rejecting such roots that the error message names.
MAX_NESTED_PROBLEMS = 2

#: pfns that are compared with the M2P in one batch.
MAX_PFNS_AT_ONCE = 1 << 20

#: Frames kept of each such batch whose M2P entry is another pfn.
MAX_M2P_DIFFERENCES = 100

#: Bytes of Xen's image in which the console ring is searched for without xen-syms. Images have 3 to
#: 8 MiB.
MAX_XEN_IMAGE = 16 << 20

#: Bytes of memory in which Xen's image is searched for if no CPU leads to it: Xen is below 4 GiB.
MAX_XEN_IMAGE_SEARCH = 4 << 30

#: Bytes of the console ring. The default is 16 to 64 KiB; conring_size= can set a few MiB.
MAX_CONSOLE_SIZE = 1 << 24

#: Bytes of the configuration of a saved domain. xl writes a few thousand.
MAX_SAVED_CONFIG = 1 << 20

# == Exported files ==

#: Bytes of the note XENKDUMP. For a domain with 8192 vCPUs it has 8 MiB.
MAX_EXPORT_NOTE = 16 << 20

#: Size of an exported file, as a multiple of the memory held. Pages that are mapped many times,
#: such as one page of zeros, do not make real dumps much larger.
MAX_EXPORT_GROWTH = 4

#: Runs of memory in which a kernel's linear mapping is verified. Each takes one page walk.
MAX_LINEAR_SAMPLE = 64

#: Mapped ranges of Xen whose virtual addresses an exported file of Xen contains. Xen 4.20 on a
#: small host has about 500.
MAX_XEN_MAPPINGS = 1 << 14

#: Page structs that are read at once: 2 MiB of them. No block of free pages crosses their end.
MAX_PAGES_AT_ONCE = 1 << 15

#: log2 of the pages of a free block. Linux has 10; CONFIG_ARCH_FORCE_MAX_ORDER does not exist on
#: x86.
MAX_PAGE_ORDER = 15

#: Bytes of a struct page. Linux has 32 to 128.
MAX_PAGE_STRUCT = 256

# == Output ==

#: Printed warnings whose texts differ only in numbers. The rest are counted.
MAX_SAME_WARNINGS = 3

#: Warnings that are recognised when they are repeated. A kernel with 100,000 unreadable tasks
#: causes 100,000 warnings.
MAX_KNOWN_WARNINGS = 1 << 18

#: Kinds of warnings. Names in a text, such as those of modules, make kinds of their own.
MAX_WARNING_KINDS = 1 << 12

#: Unusable P2M sources that a warning names.
MAX_P2M_WARNINGS = 8

#: Unusable P2M sources that `check` lists.
MAX_LISTED_SOURCES = 32

#: Disagreements of each kind that `check` lists.
MAX_LISTED_DISAGREEMENTS = 20

#: Image offsets at which kernels of other domains were found and that `domains` tries first.
MAX_KERNEL_HINTS = 16

#: Sets of such offsets with which the search for the kernel of a domain is repeated.
MAX_DOMAIN_SEARCHES = 4

#: Images of kernels, and hypervisors (by their xen-syms), that a dump keeps open for later
#: commands.
MAX_OPENED = 16

#: Elements of a list that are encoded as JSON at once.
MAX_JSON_BATCH = 256

#: Characters of a number. 64 bits need 22 in octal; Python refuses to convert more than 4300.
MAX_NUMBER_LENGTH = 64

# == Suggestions ==

#: Files of a directory that was given in place of a dump, among which a dump is looked for.
MAX_LISTED_FILES = 1 << 10

#: Names that are looked at for those similar to a mistyped one. Linux has 200,000 symbols.
MAX_SUGGESTION_NAMES = 1 << 20

#: Names of these that are compared, all of about the length and with the first letter of the word.
#: Of Linux's symbols these are up to 3,000.
MAX_SUGGESTIONS_COMPARED = 4096

#: Characters of a word for which similar ones are looked for.
MAX_SUGGESTION_NAME = 64

# == Shell ==

#: Domains that the shell keeps open, each with its kernel's symbols and types: 50 to 200 MiB. A
#: host may have hundreds. The least recently used ones are closed, and opened again when they are
#: needed.
MAX_OPEN_DOMAINS = 16

#: Candidates that the shell shows for one word. A kernel has 200,000 symbols.
MAX_COMPLETIONS = 1000

#: Lines in the file of the shell's history.
MAX_HISTORY = 10_000

#: Bytes of the history file that are read. Other programs may have written it.
MAX_HISTORY_SIZE = 4 << 20

#: Nested aliases of the shell's commands.
MAX_ALIASES = 8

# == gdb ==

#: Bytes of a packet from gdb, and of the data in a packet to it. The server announces it as
#: PacketSize; gdb reads memory and lists in parts of this size.
MAX_GDB_PACKET = 1 << 16

# == drgn ==

#: Nested BTF types, counted from one pointer to a struct to the next.
MAX_DRGN_TYPE_DEPTH = 64

#: Pointers of a constant table of the kernel whose length is not known.
MAX_CONSTANT_TABLE = 1 << 12

#: Separate ranges of physical memory that are registered with drgn. Above that, its searches of
#: memory end at the first page that the dump lacks.
MAX_DRGN_SEGMENTS = 1 << 16

# == volatility3 ==

#: Types, members and enumerators in a symbol file, with their descriptors. Linux 6.1 has 200,000.
MAX_ISF_PARTS = 1 << 23

#: Typedefs, dimensions and pointers in a descriptor.
MAX_ISF_DEPTH = 64

# == Signatures ==

#: Characters of a function's name that are part of a signature. Linux has names of up to 512.
MAX_SIGNATURE_NAME = 256

#: Characters of a panic's text that are part of a signature.
MAX_PANIC_TEXT = 160

#: Bytes at the end of a log file that are read.
MAX_LOG_FILE = 64 << 20

#: Lines at the end of a log that are searched for a fault.
MAX_LOG_LINES = 100_000

#: Characters of such a line.
MAX_LOG_LINE = 1024

#: Lines of a log that are searched for one stack.
MAX_LOG_STACK_LINES = 400

#: Functions of one stack in a log.
MAX_LOG_FUNCTIONS = 64

#: Domains of a host (without dom0) whose logs are searched for a fault, if neither Xen nor dom0 has
#: one.
MAX_SIGNATURE_DOMAINS = 16

# == Triage ==

#: Dumps of one run.
MAX_TRIAGE_DUMPS = 1_000_000

#: Processes that examine dumps on this machine.
MAX_TRIAGE_JOBS = 1024

#: Dumps of one signature in the index; the table has all.
MAX_INDEX_DUMPS = 200

#: Warnings in the row of a dump.
MAX_TRIAGE_WARNINGS = 20

#: Characters of each text in the row of a dump.
MAX_TRIAGE_TEXT = 500

#: Bytes of the file that holds one row until the row is in the table.
MAX_TRIAGE_PART = 1 << 20

#: Bytes of a row with its report that a worker may send.
MAX_TRIAGE_MESSAGE = 64 << 20

#: Dumps after which a worker is replaced, so that memory which libraries keep does not accumulate.
MAX_DUMPS_PER_WORKER = 200
# == Reports ==

#: Domains in a report. A host may have hundreds; each adds up to 200 KB.
MAX_REPORT_DOMAINS = 512

#: Last lines of each log in a report with few domains; a part of that with many.
MAX_REPORT_LOG_LINES = 200

#: Different stacks of each kernel in a report; a part of that with many domains.
MAX_REPORT_STACKS = 200

#: Frames of a stack in a report.
MAX_REPORT_FRAMES = 64

#: Frames of the stacks that are kept while a kernel is examined. Others are unwound again.
MAX_REPORT_KEPT_FRAMES = 1 << 15

#: Tasks, modules and waits of each kernel in a report; a part of that with many domains.
MAX_REPORT_ROWS = 500

#: Tasks of a group of equal stacks, or of a function, that a report names.
MAX_REPORT_NAMED = 16

#: Lines at the end of a kernel's log that a report searches for an oops.
MAX_REPORT_OOPS_LINES = 4000

#: Characters of a text from the dump in a report.
MAX_REPORT_TEXT = 2000

#: Bytes of a function before the failed instruction that a report disassembles.
MAX_REPORT_CODE = 1 << 14

#: Machine frames whose owner a report looks up: all of a host with 4 GiB.
MAX_REPORT_MACHINE_FRAMES = 1 << 20

#: Frames in the sample of a host that has more than MAX_REPORT_MACHINE_FRAMES.
MAX_REPORT_SAMPLED_FRAMES = 1 << 17

#: Runs of machine memory that the dump holds, for the picture of memory.
MAX_REPORT_RUNS = 1 << 17

#: Cells of the picture of machine memory.
MAX_REPORT_CELLS = 2000

#: Pieces of the pfn space in the picture of a P2M.
MAX_REPORT_STRIP = 240

#: Owners of machine memory in the table of a report.
MAX_REPORT_OWNERS = 40

#: pfns of each domain whose frames a report looks up for the picture of its P2M; fewer with many
#: domains. If a domain has more pfns, they are sampled.
MAX_REPORT_PFNS = 1 << 20

#: Problems in a report.
MAX_REPORT_PROBLEMS = 300
