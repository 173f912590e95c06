"""The limits that bound work and memory on corrupt and hostile input.

The comment of each constant says what is limited, in which unit, and why real dumps stay below it.
Limits that scale with the dump are budgets (``budget.py``). ``tools/limits_table.py`` makes the
table in ``docs/trust.md`` from this file.
"""

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

#: Bytes read in the search for domains that only pCPUs lead to. Each takes ten structs and what a
#: thousand pointers in them lead to, and a broken list misses a few.
MAX_DOMAIN_SEARCH = 16 << 20

#: vCPUs of a domain. A PV domain can have 8192, an HVM domain 128 (HVM_MAX_VCPUS).
MAX_VCPUS = 8192

#: Bytes of a struct vcpu. In Xen 3 it held a guest context, of 2800 or 5168 bytes.
MAX_VCPU_SIZE = 2 << 12

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

#: Further vCPUs from which layouts are inferred, of those that were running.
MAX_SAMPLED_RUNNING = 256

#: Structs of one domain that are compared with a struct vcpu, of those that point back to it.
MAX_VCPU_CANDIDATES = 64

#: Machine frames: 4 PiB of memory. x86 processors have 52 bits of physical address.
MAX_MACHINE_FRAMES = 1 << 40

#: Blocks of the frame table in the sample that estimates how many pages each domain owns.
MAX_SAMPLED_BLOCKS = 512

#: Entries in each of these blocks.
MAX_BLOCK_ENTRIES = 64

#: Entries of the frame table that are read at once.
MAX_ENTRIES_AT_ONCE = 1 << 14

#: Start addresses of the direct map that are tried. With compressed frame numbers (PDX) each NUMA
#: node has one.
MAX_DIRECT_MAP_STARTS = 64

#: Domains that are searched for their count of pages, those with most pages first.
MAX_COUNTED_DOMAINS = 64

#: Bytes of all searches for kernels, as a multiple of the memory held. A page belongs to one
#: kernel, two strings are searched for, and the first root may be another kernel's.
MAX_KERNEL_SEARCHES = 4

#: Bytes of a kernel's image in which its name is searched for. The largest images have 100 MiB.
MAX_KERNEL_IMAGE = 256 << 20

#: Banners of a kernel that are compared, and uts structs. Page caches hold further copies.
MAX_KERNEL_CANDIDATES = 64

#: Bytes of a kernel's banner. With the compiler's version it has about 200.
MAX_BANNER = 512

#: Machine frames of a translated guest in which its kernel is searched for: 2 GiB. The kernel is
#: loaded at a low address.
MAX_GUEST_FRAMES = 1 << 19

#: pfns of a P2M that a kernel's own variables describe: 512 TiB of memory.
MAX_PFNS = 1 << 37

#: CRASH_INFO notes whose frame list is tried. Xen writes one.
MAX_CRASH_INFO_NOTES = 8

#: Roots whose kernel is asked for its P2M. dom0's is one of the first that lead to its kernel.
MAX_CR3_SOURCES = 64

#: Roots under which Xen's M2P is searched for. Each root of a PV domain maps it, and a domain has
#: at most as many vCPUs.
MAX_M2P_ROOTS = 8192

#: Frames that are compared to recognise the M2P.
MAX_M2P_SAMPLE = 512

#: pfns that are compared with the M2P at once.
MAX_PFNS_AT_ONCE = 1 << 20

#: Frames kept of each such batch, of those for which the M2P has another pfn.
MAX_M2P_DIFFERENCES = 100

#: Bytes of Xen's image in which the console ring is searched for without xen-syms. Images have 3 to
#: 8 MiB.
MAX_XEN_IMAGE = 16 << 20

#: Bytes of the console ring. The default is 16 to 64 KiB; conring_size= can set a few MiB.
MAX_CONSOLE_SIZE = 1 << 24

# == Output ==

#: Warnings with identical text but for numbers that are printed. The rest is counted.
MAX_SAME_WARNINGS = 3

#: Warnings that are recognised if they are repeated. A kernel with 100,000 tasks that cannot be
#: read causes as many.
MAX_KNOWN_WARNINGS = 1 << 18

#: Kinds of warnings. Names in a text, such as those of modules, make kinds of their own.
MAX_WARNING_KINDS = 1 << 12

#: P2M sources that cannot be used and that a warning names.
MAX_P2M_WARNINGS = 8

#: P2M sources that cannot be used and that `check` lists.
MAX_LISTED_SOURCES = 32

#: Disagreements of each kind that `check` lists.
MAX_LISTED_DISAGREEMENTS = 20

#: Addresses at which kernels of other domains were found and that `domains` tries first.
MAX_KERNEL_HINTS = 16

#: Elements of a list that are encoded as JSON at once.
MAX_JSON_BATCH = 256

#: Characters of a number. 64 bits need 22 in octal; Python refuses to convert more than 4300.
MAX_NUMBER_LENGTH = 64
