"""The types and variables of Linux 6.1 on x86_64 that a reader needs."""

#: CPUs for which the masks and the table of per-CPU areas have space (CONFIG_NR_CPUS).
CPUS = 64

TYPES = """
typedef unsigned char u8;
typedef unsigned char __u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned int __u32;
typedef int s32;
typedef short s16;
typedef unsigned long long u64;
typedef long long s64;
typedef _Bool bool;
typedef int pid_t;
typedef s64 ktime_t;
typedef s64 time64_t;
typedef struct { int counter; } atomic_t;
typedef struct { s64 counter; } atomic64_t;
typedef struct { s64 counter; } atomic_long_t;
struct refcount_struct { atomic_t refs; };
typedef struct refcount_struct refcount_t;
typedef struct { unsigned int lock; } spinlock_t;
typedef struct { unsigned int lock; } raw_spinlock_t;
typedef struct { unsigned long pgd; } pgd_t;
struct list_head { struct list_head *next, *prev; };
struct hlist_node { struct hlist_node *next, **pprev; };
struct hlist_head { struct hlist_node *first; };
struct rb_node { unsigned long __rb_parent_color; struct rb_node *rb_right, *rb_left; };
struct cpumask { unsigned long bits[1]; };
typedef struct cpumask cpumask_t;
struct timespec64 { time64_t tv_sec; long tv_nsec; };

struct thread_info { unsigned long flags, syscall_work; u32 status, cpu; };
struct desc_struct { u16 limit0, base0; u16 base1 : 8, type : 4, s : 1, dpl : 2, p : 1;
    u16 limit1 : 4, avl : 1, l : 1, d : 1, g : 1, base2 : 8; } __packed;
struct fpu { unsigned int last_cpu; unsigned long avx512_timestamp; void *fpstate; };
struct thread_struct {
    struct desc_struct tls_array[3];
    unsigned long sp;
    unsigned short es, ds, fsindex, gsindex;
    unsigned long fsbase, gsbase;
    void *ptrace_bps[4];
    unsigned long virtual_dr6, ptrace_dr7, cr2, trap_nr, error_code;
    void *io_bitmap;
    unsigned long iopl_emul;
    unsigned int iopl_warn : 1;
    u32 pkru;
    struct fpu fpu;
};
struct inactive_task_frame { unsigned long r15, r14, r13, r12, bx, bp, ret_addr; };
struct pt_regs {
    unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs,
        flags, sp, ss;
};
struct orc_entry {
    s16 sp_offset, bp_offset;
    unsigned int sp_reg : 4, bp_reg : 4, type : 2, end : 1;
} __packed;

struct load_weight { unsigned long weight; u32 inv_weight; };
struct sched_entity {
    struct load_weight load; struct rb_node run_node; struct list_head group_node;
    unsigned int on_rq; u64 exec_start, sum_exec_runtime, vruntime, prev_sum_exec_runtime;
};
struct sched_info { unsigned long pcount; u64 run_delay, last_arrival, last_queued; };
struct upid { int nr; struct pid_namespace *ns; };
struct pid {
    refcount_t count; unsigned int level; spinlock_t lock; struct hlist_head tasks[4];
    struct upid numbers[1];
};
struct mm_struct {
    struct {
        unsigned long mmap_base, task_size;
        pgd_t *pgd;
        atomic_t mm_users, mm_count;
        int map_count;
        unsigned long total_vm, locked_vm, data_vm, exec_vm, stack_vm;
        unsigned long start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
        unsigned long arg_start, arg_end, env_start, env_end;
        atomic_long_t rss_stat[4];
        unsigned long flags;
        struct task_struct *owner;
    };
    unsigned long cpu_bitmap[];
};
struct signal_struct {
    refcount_t sigcnt; atomic_t live; int nr_threads; struct list_head thread_head;
    struct task_struct *group_exec_task; unsigned int flags; struct pid *pids[4]; void *tty;
};
union thread_union { unsigned long stack[2048]; };
struct task_struct {
    struct thread_info thread_info;
    unsigned int __state;
    void *stack;
    refcount_t usage;
    unsigned int flags, ptrace;
    int on_cpu, recent_used_cpu, wake_cpu, on_rq, prio, static_prio, normal_prio;
    unsigned int rt_priority;
    struct sched_entity se;
    unsigned int policy;
    int nr_cpus_allowed;
    cpumask_t *cpus_ptr;
    cpumask_t cpus_mask;
    struct sched_info sched_info;
    struct list_head tasks;
    struct mm_struct *mm, *active_mm;
    int exit_state, exit_code, exit_signal, pdeath_signal;
    unsigned long jobctl;
    unsigned int personality;
    unsigned int sched_reset_on_fork : 1, sched_contributes_to_load : 1, sched_migrated : 1;
    unsigned int in_execve : 1, in_iowait : 1;
    unsigned long atomic_flags;
    pid_t pid, tgid;
    unsigned long stack_canary;
    struct task_struct *real_parent, *parent;
    struct list_head children, sibling;
    struct task_struct *group_leader;
    struct pid *thread_pid;
    struct hlist_node pid_links[4];
    struct list_head thread_group, thread_node;
    u64 utime, stime, gtime;
    unsigned long nvcsw, nivcsw;
    u64 start_time, start_boottime;
    unsigned long min_flt, maj_flt;
    char comm[16];
    void *fs, *files, *nsproxy;
    struct signal_struct *signal;
    void *sighand;
    refcount_t stack_refcount;
    struct thread_struct thread;
} __aligned(64);

struct cfs_rq { struct load_weight load; unsigned int nr_running, h_nr_running; u64 min_vruntime; };
struct rq {
    raw_spinlock_t __lock;
    unsigned int nr_running;
    u64 nr_switches;
    struct cfs_rq cfs;
    unsigned long nr_uninterruptible;
    struct task_struct *curr, *idle, *stop;
    unsigned long next_balance;
    struct mm_struct *prev_mm;
    u64 clock, clock_task;
    atomic_t nr_iowait;
    int cpu, online;
} __aligned(64);

struct new_utsname {
    char sysname[65], nodename[65], release[65], version[65], machine[65], domainname[65];
};
struct uts_namespace { struct new_utsname name; void *user_ns, *ucounts; };

struct tk_read_base {
    void *clock; u64 mask, cycle_last; u32 mult, shift; u64 xtime_nsec; ktime_t base; u64 base_real;
};
struct timekeeper {
    struct tk_read_base tkr_mono, tkr_raw;
    u64 xtime_sec;
    unsigned long ktime_sec;
    struct timespec64 wall_to_monotonic;
    ktime_t offs_real, offs_boot, offs_tai;
    s32 tai_offset;
    unsigned int clock_was_set_seq;
    u8 cs_was_changed_seq;
    ktime_t next_leap_ktime;
    u64 raw_sec;
    struct timespec64 monotonic_to_boot;
};

struct prb_data_blk_lpos { unsigned long begin, next; };
struct prb_desc { atomic_long_t state_var; struct prb_data_blk_lpos text_blk_lpos; };
struct dev_printk_info { char subsystem[16]; char device[48]; };
struct printk_info {
    u64 seq, ts_nsec; u16 text_len; u8 facility; u8 flags : 5, level : 3; u32 caller_id;
    struct dev_printk_info dev_info;
};
struct prb_desc_ring {
    unsigned int count_bits; struct prb_desc *descs; struct printk_info *infos;
    atomic_long_t head_id, tail_id, last_finalized_id;
};
struct prb_data_ring { unsigned int size_bits; char *data; atomic_long_t head_lpos, tail_lpos; };
struct printk_ringbuffer {
    struct prb_desc_ring desc_ring; struct prb_data_ring text_data_ring; atomic_long_t fail;
};

struct cpuinfo_x86 {
    __u8 x86, x86_vendor, x86_model, x86_stepping;
    int x86_tlbsize;
    __u32 vmx_capability[5];
    __u8 x86_virt_bits, x86_phys_bits, x86_coreid_bits, cu_id;
    __u32 extended_cpuid_level;
    int cpuid_level;
    __u32 x86_capability[24];
    char x86_vendor_id[16];
    char x86_model_id[64];
    unsigned int x86_cache_size;
    unsigned long loops_per_jiffy;
    u16 x86_max_cores, apicid, initial_apicid, cpu_index;
    u32 microcode;
};

struct zone {
    unsigned long _watermark[4], zone_start_pfn; atomic_long_t managed_pages;
    unsigned long spanned_pages, present_pages; char *name; };
struct pglist_data {
    struct zone node_zones[2];
    int nr_zones;
    unsigned long node_start_pfn, node_present_pages, node_spanned_pages;
    int node_id;
};
typedef struct pglist_data pg_data_t;

enum module_state { MODULE_STATE_LIVE, MODULE_STATE_COMING, MODULE_STATE_GOING,
    MODULE_STATE_UNFORMED };
typedef struct { unsigned int st_name; unsigned char st_info, st_other; unsigned short st_shndx;
    u64 st_value, st_size; } Elf64_Sym;
struct mod_kallsyms { Elf64_Sym *symtab; unsigned int num_symtab; char *strtab; char *typetab; };
struct mod_arch_specific {
    unsigned int num_orcs; int *orc_unwind_ip; struct orc_entry *orc_unwind;
};
struct module_layout { void *base; unsigned int size, text_size, ro_size, ro_after_init_size; };
struct module {
    enum module_state state;
    struct list_head list;
    char name[56];
    char *version, *srcversion;
    struct module_layout core_layout, init_layout;
    struct mod_arch_specific arch;
    unsigned long taints;
    struct mod_kallsyms *kallsyms;
    struct mod_kallsyms core_kallsyms;
    char *args;
    atomic_t refcnt;
} __aligned(64);
"""

VARIABLES = """
char linux_banner[256] __rodata;
unsigned long __per_cpu_offset[64] __rodata __aligned(64);
unsigned long page_offset_base __rodata;
unsigned long vmalloc_base __rodata;
unsigned long vmemmap_base __rodata;
void *sys_call_table[512] __rodata __aligned(32);

unsigned long init_stack[2048] __data __aligned(16384);
struct task_struct init_task __data;
unsigned long init_top_pgt[512] __data __aligned(4096);
unsigned long phys_base __data;
u64 jiffies_64 __data __aligned(64);
int crashing_cpu __data;
atomic_t panic_cpu __data;
struct cpumask __cpu_possible_mask __data;
struct cpumask __cpu_online_mask __data;
struct cpumask __cpu_present_mask __data;
struct cpumask __cpu_active_mask __data;
unsigned int nr_cpu_ids __data;
unsigned long tick_nsec __data;
unsigned long tainted_mask __data;
struct cpuinfo_x86 boot_cpu_data __data;
unsigned int cpu_khz __data;
unsigned int tsc_khz __data;
unsigned long *xen_p2m_addr __data;
unsigned long xen_p2m_size __data;
unsigned long xen_max_p2m_pfn __data;
atomic_long_t _totalram_pages __data;
struct uts_namespace init_uts_ns __data;
struct list_head modules __data;
struct mm_struct init_mm __data;
struct signal_struct init_signals __data __local;
struct printk_ringbuffer printk_rb_static __data __local;
struct printk_ringbuffer *prb __data __local;
char *log_buf __data __local;
u32 log_buf_len __data __local;
struct prb_desc _printk_rb_static_descs[1024] __data __local;
struct printk_info _printk_rb_static_infos[1024] __data __local;
void *HYPERVISOR_shared_info __data;
struct pglist_data *node_data[64] __data;

unsigned long fixed_percpu_data[6] __percpu __aligned(4096);
unsigned long irq_stack_backing_store[2048] __percpu __aligned(4096);
unsigned long cpu_number __percpu;
unsigned long this_cpu_off __percpu;
u32 xen_vcpu_id __percpu;
struct task_struct *current_task __percpu;
void *hardirq_stack_ptr __percpu;
unsigned long cpu_current_top_of_stack __percpu;
struct task_struct *idle_threads __percpu;
struct rq runqueues __percpu;

unsigned long avenrun[3];
struct { unsigned int seq; struct timekeeper timekeeper; } tk_core __local __aligned(64);
unsigned long max_pfn;
unsigned long max_low_pfn;
unsigned long xen_p2m_last_pfn __local;
unsigned long total_forks;
int nr_threads;
void *high_memory;
char *saved_command_line;
void *kexec_crash_image;
unsigned char *vmcoreinfo_data;
unsigned long vmcoreinfo_size;
u32 *vmcoreinfo_note;
void *xen_start_info;
char __log_buf[131072] __local __aligned(8);
"""


def for_cpus(cpus: int) -> tuple[str, str]:
    """The types and variables of a kernel that was built for ``cpus`` CPUs or more."""
    words = max(-(-cpus // 64), 1)
    return (
        TYPES.replace(
            "cpumask { unsigned long bits[1];", f"cpumask {{ unsigned long bits[{words}];"
        ),
        VARIABLES.replace(f"__per_cpu_offset[{CPUS}]", f"__per_cpu_offset[{64 * words}]"),
    )
