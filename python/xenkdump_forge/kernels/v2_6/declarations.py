"""The types and variables of Linux 2.6.16 and 2.6.18 with Xen's patches.

Lines with a ``$`` apply to some builds only: ``$i386``, ``$x86_64``, ``$pae``, ``$nopae``,
``$16`` (2.6.16), ``$18`` (2.6.18).
"""

from __future__ import annotations

from collections.abc import Collection

TYPES = """
typedef unsigned char __u8;
typedef unsigned int __u32;
typedef unsigned int u32;
typedef int pid_t;
typedef unsigned long cputime_t;
typedef struct { volatile int counter; } atomic_t;
typedef struct { volatile unsigned int slock; } raw_spinlock_t;
typedef struct { raw_spinlock_t raw_lock; } spinlock_t;
typedef struct { unsigned long bits[1]; } cpumask_t;
$nopae typedef struct { unsigned long pgd; } pgd_t;
$pae typedef struct { unsigned long long pgd; } pgd_t;
struct list_head { struct list_head *next, *prev; };
struct hlist_node { struct hlist_node *next, **pprev; };
struct hlist_head { struct hlist_node *first; };
struct timespec { long tv_sec, tv_nsec; };

struct exec_domain { char *name; };
$i386 typedef struct { unsigned long seg; } mm_segment_t;
$i386 struct thread_info {
$i386     struct task_struct *task; struct exec_domain *exec_domain;
$i386     unsigned long flags, status; __u32 cpu; int preempt_count; mm_segment_t addr_limit;
$i386     void *sysenter_return; unsigned long restart_block[5], previous_esp;
$i386     __u8 supervisor_stack[];
$i386 };
$i386 struct desc_struct { unsigned long a, b; };
$i386 struct thread_struct {
$i386     struct desc_struct tls_array[3]; unsigned long esp0, sysenter_cs, eip, esp, fs, gs;
$i386     unsigned long debugreg[8], cr2, trap_no, error_code; unsigned char i387[512];
$i386     unsigned long *io_bitmap_ptr, iopl, io_bitmap_max;
$i386 };
$i386 struct pt_regs {
$i386     long ebx, ecx, edx, esi, edi, ebp, eax; int xds, xes; long orig_eax, eip; int xcs;
$i386     long eflags, esp; int xss;
$i386 };
$i386 union thread_union { struct thread_info thread_info; unsigned long stack[2048]; };

$x86_64 typedef struct { unsigned long seg; } mm_segment_t;
$x86_64 struct thread_info {
$x86_64     struct task_struct *task; struct exec_domain *exec_domain;
$x86_64     __u32 flags, status, cpu; int preempt_count; mm_segment_t addr_limit;
$x86_64     unsigned long restart_block[5];
$x86_64 };
$x86_64 struct thread_struct {
$x86_64     unsigned long rsp0, rsp, userrsp, fs, gs; unsigned short es, ds, fsindex, gsindex;
$x86_64     unsigned long debugreg0, debugreg1, debugreg2, debugreg3, debugreg6, debugreg7;
$x86_64     unsigned long cr2, trap_no, error_code; unsigned char i387[512];
$x86_64     int ioperm; unsigned long *io_bitmap_ptr; unsigned int io_bitmap_max;
$x86_64     unsigned long tls_array[3]; unsigned int iopl;
$x86_64 };
$x86_64 struct pt_regs {
$x86_64     unsigned long r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
$x86_64     unsigned long orig_rax, rip, cs, eflags, rsp, ss;
$x86_64 };
$x86_64 union thread_union { struct thread_info thread_info; unsigned long stack[1024]; };
$x86_64 struct x8664_pda {
$x86_64     struct task_struct *pcurrent; unsigned long data_offset, kernelstack, oldrsp;
$x86_64     unsigned long debugstack; int irqcount, cpunumber; char *irqstackptr;
$x86_64     int nodenumber; unsigned int __softirq_pending, __nmi_count; int mmu_state;
$x86_64     struct mm_struct *active_mm; unsigned int apic_timer_irqs;
$x86_64 };

enum pid_type { PIDTYPE_PID, PIDTYPE_TGID, PIDTYPE_PGID, PIDTYPE_SID, PIDTYPE_MAX };
$16 struct pid { int nr; struct hlist_node pid_chain; struct list_head pid_list; };
$18 struct pid { atomic_t count; int nr; struct hlist_node pid_chain; struct hlist_head tasks[3]; };
$18 struct pid_link { struct hlist_node node; struct pid *pid; };

struct mm_struct {
    void *mmap, *mm_rb, *mmap_cache;
    unsigned long mmap_base, task_size, cached_hole_size, free_area_cache;
    pgd_t *pgd;
    atomic_t mm_users, mm_count;
    int map_count;
    spinlock_t page_table_lock;
    struct list_head mmlist;
    unsigned long hiwater_rss, hiwater_vm, total_vm, locked_vm, shared_vm, exec_vm, stack_vm;
    unsigned long start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
};
struct signal_struct { atomic_t count, live; struct task_struct *curr_target; };
struct prio_array { unsigned int nr_active; unsigned long bitmap[5]; };
struct task_struct {
    volatile long state;
    struct thread_info *thread_info;
    atomic_t usage;
    unsigned long flags, ptrace;
    int lock_depth;
$18 int load_weight;
    int prio, static_prio;
$18 int normal_prio;
    struct list_head run_list;
    struct prio_array *array;
    unsigned short ioprio;
    unsigned int btrace_seq;
    unsigned long sleep_avg;
    unsigned long long timestamp, last_ran, sched_time;
$16 int activated;
$18 int sleep_type;
    unsigned long policy;
    cpumask_t cpus_allowed;
    unsigned int time_slice, first_time_slice;
    struct list_head tasks, ptrace_children, ptrace_list;
    struct mm_struct *mm, *active_mm;
    void *binfmt;
    long exit_state;
    int exit_code, exit_signal, pdeath_signal;
    unsigned long personality;
    unsigned int did_exec : 1;
    pid_t pid, tgid;
    struct task_struct *real_parent, *parent;
    struct list_head children, sibling;
    struct task_struct *group_leader;
$16 struct pid pids[PIDTYPE_MAX];
$18 struct pid_link pids[3];
$18 struct list_head thread_group;
    void *vfork_done;
    int *set_child_tid, *clear_child_tid;
    unsigned long rt_priority;
    cputime_t utime, stime;
    unsigned long nvcsw, nivcsw;
    struct timespec start_time;
    unsigned long min_flt, maj_flt;
    unsigned int uid, euid, suid, fsuid, gid, egid, sgid, fsgid;
    void *group_info, *user;
    int oomkilladj;
    char comm[16];
    int link_count, total_link_count;
    struct thread_struct thread;
    void *fs, *files, *namespace;
    struct signal_struct *signal;
    void *sighand;
};

$16 struct runqueue {
$18 struct rq {
    spinlock_t lock;
    unsigned long nr_running, cpu_load[3];
    unsigned long long nr_switches;
    unsigned long nr_uninterruptible, expired_timestamp;
    unsigned long long timestamp_last_tick;
    struct task_struct *curr, *idle;
    struct mm_struct *prev_mm;
    struct prio_array *active, *expired, arrays[2];
    int best_expired_prio;
    atomic_t nr_iowait;
};

struct new_utsname {
    char sysname[65], nodename[65], release[65], version[65], machine[65], domainname[65];
};
struct cpuinfo_x86 {
    __u8 x86, x86_vendor, x86_model, x86_mask;
    int cpuid_level;
    unsigned long x86_capability[7];
    char x86_vendor_id[16], x86_model_id[64];
    int x86_cache_size, x86_cache_alignment;
    unsigned long loops_per_jiffy;
};
struct zone {
    unsigned long free_pages, pages_min, pages_low, pages_high;
    unsigned long zone_start_pfn, spanned_pages, present_pages;
    char *name;
};
struct pglist_data {
    struct zone node_zones[4];
    int nr_zones;
    void *node_mem_map;
    unsigned long node_start_pfn, node_present_pages, node_spanned_pages;
    int node_id;
};
struct page { unsigned long flags; atomic_t _count, _mapcount; void *mapping;
    unsigned long index; struct list_head lru; };

enum module_state { MODULE_STATE_LIVE, MODULE_STATE_COMING, MODULE_STATE_GOING };
struct module_ref { unsigned long count; } __aligned(128);
struct module {
    enum module_state state;
    struct list_head list;
    char name[60];
    void *mkobj[20], *param_attrs, *modinfo_attrs;
    char *version, *srcversion;
    void *syms; unsigned int num_syms; unsigned long *crcs;
    void *gpl_syms; unsigned int num_gpl_syms; unsigned long *gpl_crcs;
    unsigned int num_exentries; void *extable;
    void *init;
    void *module_init, *module_core;
    unsigned long init_size, core_size, init_text_size, core_text_size;
    void *unwind_info;
    int unsafe, license_gplok;
    struct module_ref ref[32];
    struct list_head modules_which_use_me;
    void *waiter, *exit;
    void *symtab; unsigned long num_symtab; char *strtab;
    void *sect_attrs, *percpu;
    char *args;
};
"""

VARIABLES = """
char linux_banner[256] __rodata;
void *sys_call_table[320] __rodata __aligned(32);

struct task_struct init_task __data __aligned(32);
union thread_union init_thread_union __data __aligned(8192);
$i386 pgd_t *swapper_pg_dir __data;
$x86_64 pgd_t init_level4_pgt[512] __data __aligned(4096);
unsigned long *phys_to_machine_mapping __data;
$i386 unsigned long *pfn_to_mfn_frame_list_list __data;
$i386 unsigned long *pfn_to_mfn_frame_list[16] __data;
unsigned long long jiffies_64 __data __aligned(64);
struct timespec xtime __data __aligned(16);
struct timespec wall_to_monotonic __data __aligned(16);
unsigned long tick_nsec __data;
struct new_utsname system_utsname __data;
struct cpuinfo_x86 boot_cpu_data __data __aligned(64);
unsigned int cpu_khz __data;
cpumask_t cpu_online_map __data;
cpumask_t cpu_possible_map __data;
cpumask_t cpu_present_map __data;
char *log_buf __data __local;
int log_buf_len __data __local;
void *HYPERVISOR_shared_info __data;
struct list_head modules __data __local;
$i386 unsigned long __per_cpu_offset[32] __data __aligned(32);
$x86_64 struct x8664_pda boot_cpu_pda[32] __data __aligned(64);
$x86_64 struct x8664_pda *_cpu_pda[32] __data;
struct mm_struct init_mm __data;
struct pglist_data contig_page_data __data;
struct hlist_head *pid_hash[PIDTYPE_MAX] __data __local;
int pidhash_shift __data __local;

struct task_struct *per_cpu__current_task __percpu __local;
$16 struct runqueue per_cpu__runqueues __percpu __local __aligned(64);
$18 struct rq per_cpu__runqueues __percpu __local __aligned(64);

unsigned long avenrun[3];
unsigned long max_low_pfn;
$i386 unsigned long max_pfn;
$x86_64 unsigned long end_pfn;
$x86_64 unsigned long end_pfn_map;
$x86_64 unsigned long max_pfn;
unsigned long max_mapnr;
unsigned long num_physpages;
unsigned long totalram_pages;
int nr_threads;
unsigned long total_forks;
int tainted;
void *xen_start_info;
void *high_memory;
unsigned long log_start __local;
unsigned long con_start __local;
unsigned long log_end __local;
unsigned long logged_chars __local;
char __log_buf[32768] __local __aligned(4);
char saved_command_line[256];
"""


def select(text: str, keep: Collection[str]) -> str:
    """The lines for all builds, and those for one of ``keep``."""
    out = []
    for line in text.splitlines():
        mark, _, rest = line.partition(" ")
        if not mark.startswith("$"):
            out.append(line)
        elif mark[1:] in keep:
            out.append(rest)
    return "\n".join(out)
