"""The types and variables of Linux 4.19 on i386 with PAE, a pvops kernel."""

TYPES = """
typedef unsigned char u8;
typedef unsigned char __u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned int __u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;
typedef _Bool bool;
typedef int pid_t;
typedef s64 ktime_t;
typedef s64 time64_t;
typedef struct { int counter; } atomic_t;
typedef struct { int counter; } atomic_long_t;
struct refcount_struct { atomic_t refs; };
typedef struct refcount_struct refcount_t;
struct kref { refcount_t refcount; };
typedef struct { unsigned int lock; } spinlock_t;
typedef struct { unsigned int lock; } raw_spinlock_t;
typedef struct { u64 pgd; } pgd_t;
struct list_head { struct list_head *next, *prev; };
struct hlist_node { struct hlist_node *next, **pprev; };
struct hlist_head { struct hlist_node *first; };
struct cpumask { unsigned long bits[1]; };
typedef struct cpumask cpumask_t;
struct timespec64 { time64_t tv_sec; long tv_nsec; };

struct thread_info { unsigned long flags; u32 status; };
struct desc_struct { u16 limit0, base0; u16 base1 : 8, type : 4, s : 1, dpl : 2, p : 1;
    u16 limit1 : 4, avl : 1, l : 1, d : 1, g : 1, base2 : 8; } __packed;
struct fpu { unsigned int last_cpu; unsigned char initialized; };
struct thread_struct {
    struct desc_struct tls_array[3];
    unsigned long sp0, sp, sysenter_cs;
    void *ptrace_bps[4];
    unsigned long debugreg6, ptrace_dr7, cr2, trap_nr, error_code;
    void *vm86;
    unsigned long *io_bitmap_ptr;
    unsigned long iopl;
    unsigned int io_bitmap_max;
    unsigned int sig_on_uaccess_err : 1, uaccess_err : 1;
    struct fpu fpu;
};
struct inactive_task_frame { unsigned long flags, si, di, bx, bp, ret_addr; };
struct pt_regs {
    unsigned long bx, cx, dx, si, di, bp, ax;
    unsigned short ds, __dsh, es, __esh, fs, __fsh, gs, __gsh;
    unsigned long orig_ax, ip;
    unsigned short cs, __csh;
    unsigned long flags, sp;
    unsigned short ss, __ssh;
};

struct load_weight { unsigned long weight; u32 inv_weight; };
struct sched_entity {
    struct load_weight load; u64 exec_start, sum_exec_runtime, vruntime, prev_sum_exec_runtime;
};
struct upid { int nr; struct pid_namespace *ns; };
struct pid {
    atomic_t count; unsigned int level; struct hlist_head tasks[4]; struct upid numbers[1];
};
struct mm_struct {
    struct {
        void *mmap;
        u64 vmacache_seqnum;
        unsigned long mmap_base, task_size, highest_vm_end;
        pgd_t *pgd;
        atomic_t mm_users, mm_count;
        int map_count;
        unsigned long total_vm, locked_vm, data_vm, exec_vm, stack_vm;
        unsigned long start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
        atomic_long_t rss_stat[4];
        unsigned long flags;
        struct task_struct *owner;
    };
    unsigned long cpu_bitmap[];
};
struct signal_struct {
    atomic_t sigcnt, live; int nr_threads; struct list_head thread_head; unsigned int flags;
};
union thread_union { unsigned long stack[2048]; };
struct task_struct {
    struct thread_info thread_info;
    volatile long state;
    void *stack;
    atomic_t usage;
    unsigned int flags, ptrace;
    int on_cpu;
    unsigned int cpu;
    unsigned int wakee_flips;
    int recent_used_cpu, wake_cpu, on_rq, prio, static_prio, normal_prio;
    unsigned int rt_priority;
    struct sched_entity se;
    unsigned int policy;
    int nr_cpus_allowed;
    cpumask_t cpus_allowed;
    struct list_head tasks;
    struct mm_struct *mm, *active_mm;
    int exit_state, exit_code, exit_signal, pdeath_signal;
    unsigned long jobctl;
    unsigned int personality;
    unsigned int sched_reset_on_fork : 1, sched_contributes_to_load : 1, in_execve : 1;
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
    u64 start_time, real_start_time;
    unsigned long min_flt, maj_flt;
    char comm[16];
    void *fs, *files, *nsproxy;
    struct signal_struct *signal;
    void *sighand;
    atomic_t stack_refcount;
    struct thread_struct thread;
} __aligned(64);

struct cfs_rq { struct load_weight load; unsigned int nr_running, h_nr_running; u64 min_vruntime; };
struct rq {
    raw_spinlock_t lock;
    unsigned int nr_running;
    unsigned long cpu_load[5];
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
struct uts_namespace { struct kref kref; struct new_utsname name; void *user_ns, *ucounts; };

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
};

struct printk_log {
    u64 ts_nsec; u16 len, text_len, dict_len; u8 facility; u8 flags : 5, level : 3;
} __packed __aligned(4);

struct cpuinfo_x86 {
    __u8 x86, x86_vendor, x86_model, x86_stepping;
    __u8 x86_virt_bits, x86_phys_bits, x86_coreid_bits, cu_id;
    __u32 extended_cpuid_level;
    int cpuid_level;
    __u32 x86_capability[20];
    char x86_vendor_id[16];
    char x86_model_id[64];
    unsigned int x86_cache_size;
    unsigned long loops_per_jiffy;
    u16 x86_max_cores, apicid, initial_apicid, cpu_index;
    u32 microcode;
};
struct zone {
    unsigned long watermark[3], zone_start_pfn, managed_pages, spanned_pages, present_pages;
    char *name;
};
struct pglist_data {
    struct zone node_zones[4];
    int nr_zones;
    unsigned long node_start_pfn, node_present_pages, node_spanned_pages;
    int node_id;
};
enum module_state { MODULE_STATE_LIVE, MODULE_STATE_COMING, MODULE_STATE_GOING,
    MODULE_STATE_UNFORMED };
struct mod_kallsyms { void *symtab; unsigned int num_symtab; char *strtab; };
struct module_layout { void *base; unsigned int size, text_size, ro_size, ro_after_init_size; };
struct module {
    enum module_state state;
    struct list_head list;
    char name[60];
    struct module_layout core_layout, init_layout;
    unsigned long taints;
    struct mod_kallsyms *kallsyms;
    struct mod_kallsyms core_kallsyms;
} __aligned(64);
"""

VARIABLES = """
char linux_banner[256] __rodata;
unsigned long __per_cpu_offset[32] __rodata __aligned(64);
void *sys_call_table[400] __rodata __aligned(32);

unsigned long init_thread_union[2048] __data __aligned(8192);
struct task_struct init_task __data;
pgd_t swapper_pg_dir[512] __data __aligned(4096);
u64 jiffies_64 __data __aligned(64);
unsigned long tick_nsec __data;
unsigned long tainted_mask __data;
int crashing_cpu __data;
atomic_t panic_cpu __data;
struct cpumask __cpu_possible_mask __data;
struct cpumask __cpu_online_mask __data;
struct cpumask __cpu_present_mask __data;
struct cpumask __cpu_active_mask __data;
unsigned int nr_cpu_ids __data;
struct cpuinfo_x86 boot_cpu_data __data;
unsigned int cpu_khz __data;
unsigned int tsc_khz __data;
unsigned long *xen_p2m_addr __data;
unsigned long xen_p2m_size __data;
unsigned long xen_max_p2m_pfn __data;
unsigned long totalram_pages __data;
struct uts_namespace init_uts_ns __data;
struct list_head modules __data __local;
struct mm_struct init_mm __data;
struct signal_struct init_signals __data __local;
struct pglist_data contig_page_data __data;
char *log_buf __data __local;
u32 log_buf_len __data __local;
void *HYPERVISOR_shared_info __data;

unsigned long cpu_number __percpu;
unsigned long this_cpu_off __percpu;
u32 xen_vcpu_id __percpu;
struct task_struct *current_task __percpu;
void *hardirq_stack __percpu;
void *softirq_stack __percpu;
struct rq runqueues __percpu;

unsigned long avenrun[3];
struct { unsigned int seq; struct timekeeper timekeeper; } tk_core __local __aligned(64);
unsigned long max_pfn;
unsigned long max_low_pfn;
unsigned long xen_p2m_last_pfn __local;
unsigned long total_forks;
int nr_threads;
void *high_memory;
unsigned char *vmcoreinfo_data;
u32 vmcoreinfo_size;
u64 log_first_seq __local;
u32 log_first_idx __local;
u64 log_next_seq __local;
u32 log_next_idx __local;
char __log_buf[131072] __local __aligned(4);
"""
