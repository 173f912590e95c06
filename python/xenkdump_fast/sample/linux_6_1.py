"""Linux 6.1 on x86_64: BTF, ORC, a pvops kernel with the P2M as a linear list."""

from __future__ import annotations

from . import elf
from .asm import Asm, Row
from .cparse import parse
from .ctype import X86_64
from .image import Spec
from .text import Frame, Handwritten, Recipe, names

RELEASE = "6.1.0-56-amd64"
VERSION = "#1 SMP PREEMPT_DYNAMIC xenkdump_fast sample (2026-11-16)"
BANNER = f"Linux version {RELEASE} (builder@example) (gcc 12.2.0, GNU ld 2.40) {VERSION}\n"

TEXT = 0xFFFFFFFF81000000
RODATA = 0xFFFFFFFF81800000
DATA = 0xFFFFFFFF81C00000
BSS = 0xFFFFFFFF82000000
KERNEL_MAP = 0xFFFFFFFF80000000
PAGE_OFFSET = 0xFFFF888000000000

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

_SYSCALL = ("do_syscall_64", "entry_SYSCALL_64")
_KTHREAD = ("kthread", "ret_from_fork")
_SLEEP = ("__switch_to_asm", "__schedule", "schedule")
_READ = ("vfs_read", "ksys_read", "__x64_sys_read", *_SYSCALL)


def _sleep(chain: str, *outer: str) -> tuple[str, ...]:
    return (*_SLEEP, *names(chain), *outer)


#: What tasks sleep in: the chain of calls, innermost first.
SLEEPS: dict[str, tuple[str, ...]] = {
    "wait": _sleep("do_wait kernel_wait4 __do_sys_wait4 __x64_sys_wait4", *_SYSCALL),
    "poll": _sleep(
        "schedule_hrtimeout_range_clock schedule_hrtimeout_range poll_schedule_timeout.constprop.0 "
        "do_sys_poll __x64_sys_poll",
        *_SYSCALL,
    ),
    "select": _sleep(
        "schedule_hrtimeout_range_clock schedule_hrtimeout_range do_select core_sys_select "
        "kern_select __x64_sys_select",
        *_SYSCALL,
    ),
    "epoll": _sleep(
        "schedule_hrtimeout_range_clock ep_poll do_epoll_wait __x64_sys_epoll_wait", *_SYSCALL
    ),
    "futex": _sleep(
        "futex_wait_queue futex_wait do_futex __x64_sys_futex",
        *_SYSCALL,
    ),
    "nanosleep": _sleep("do_nanosleep hrtimer_nanosleep __x64_sys_nanosleep", *_SYSCALL),
    "tty": _sleep("schedule_timeout wait_woken n_tty_read tty_read", *_READ),
    "pipe": _sleep("pipe_read", *_READ),
    "syslog": _sleep("do_syslog kmsg_read proc_reg_read", *_READ),
    "accept": _sleep(
        "schedule_timeout inet_csk_accept inet_accept do_accept __sys_accept4 __x64_sys_accept",
        *_SYSCALL,
    ),
    "pause": _sleep("__x64_sys_pause", *_SYSCALL),
    "signal": _sleep("do_sigtimedwait __x64_sys_rt_sigtimedwait", *_SYSCALL),
    "stopped": _sleep(
        "do_signal_stop get_signal arch_do_signal_or_restart "
        "exit_to_user_mode_prepare syscall_exit_to_user_mode",
        *_SYSCALL,
    ),
    "fault": _sleep(
        "io_schedule folio_wait_bit_common filemap_fault __do_fault do_fault __handle_mm_fault "
        "handle_mm_fault do_user_addr_fault exc_page_fault asm_exc_page_fault"
    ),
    "journal": _sleep("kjournald2", *_KTHREAD),
    "kthreadd": _sleep("kthreadd ret_from_fork"),
    "worker": _sleep("worker_thread", *_KTHREAD),
    "rescuer": _sleep("rescuer_thread", *_KTHREAD),
    "smpboot": _sleep("smpboot_thread_fn", *_KTHREAD),
    "rcu": _sleep("schedule_timeout rcu_gp_fqs_loop rcu_gp_kthread", *_KTHREAD),
    "rcu_tasks": _sleep("rcu_tasks_one_gp rcu_tasks_kthread", *_KTHREAD),
    "kswapd": _sleep("kswapd_try_to_sleep kswapd", *_KTHREAD),
    "kcompactd": _sleep("schedule_timeout kcompactd", *_KTHREAD),
    "khugepaged": _sleep("schedule_timeout khugepaged", *_KTHREAD),
    "ksmd": _sleep("ksm_scan_thread", *_KTHREAD),
    "oom_reaper": _sleep("oom_reaper", *_KTHREAD),
    "kauditd": _sleep("kauditd_thread", *_KTHREAD),
    "kdevtmpfs": _sleep("devtmpfs_work_loop devtmpfsd", *_KTHREAD),
    "khungtaskd": _sleep("schedule_timeout watchdog", *_KTHREAD),
    "xenwatch": _sleep("xenwatch_thread", *_KTHREAD),
    "xenbus": _sleep("xb_read process_msg xenbus_thread", *_KTHREAD),
    "idle0": (
        *_SLEEP[:2],
        *names(
            "schedule_idle do_idle cpu_startup_entry rest_init arch_call_rest_init start_kernel "
            "xen_start_kernel startup_xen"
        ),
    ),
    "idle": (
        *_SLEEP[:2],
        *names(
            "schedule_idle do_idle cpu_startup_entry cpu_bringup_and_idle asm_cpu_bringup_and_idle"
        ),
    ),
}

_HALT = names("xen_hypercall_sched_op xen_safe_halt default_idle default_idle_call")

#: What vCPUs were doing when the host died.
RUNNING: dict[str, tuple[str, ...]] = {
    "panic": (
        *names(
            "xen_hypercall_sched_op xen_reboot xen_panic_event notifier_call_chain "
            "atomic_notifier_call_chain panic sysrq_handle_crash __handle_sysrq "
            "write_sysrq_trigger proc_reg_write vfs_write ksys_write __x64_sys_write"
        ),
        *_SYSCALL,
    ),
    "idle0": (*_HALT, *SLEEPS["idle0"][3:]),
    "idle": (*_HALT, *SLEEPS["idle"][3:]),
}

#: Number of the hypercall with which a vCPU blocks or reports a crash.
SCHED_OP = 29

_CALLEE_SAVED = ("rbp", "rbx", "r12", "r13", "r14", "r15")


def _switch_to_asm(sp_offset: int) -> Handwritten:
    def emit(asm: Asm) -> None:
        asm.state(Row(offset=8))
        for reg in _CALLEE_SAVED:
            asm.push(reg)
        asm.emit(b"\x48\x89\xa7" + sp_offset.to_bytes(4, "little"))  # mov %rsp, sp(%rdi)
        asm.emit(b"\x48\x8b\xa6" + sp_offset.to_bytes(4, "little"))  # mov sp(%rsi), %rsp
        for reg in reversed(_CALLEE_SAVED):
            asm.pop(reg)
        asm.jump("__switch_to")

    return emit


#: Pushes of the registers behind the five words that the processor or Xen pushed, and orig_rax:
#: rdi rsi rdx rcx rax r8-r11 rbx rbp r12-r15.
_PUSH_REGS = "57 56 52 51 6a da 41 50 41 51 41 52 41 53 53 55 41 54 41 55 41 56 41 57"


def _entry_syscall_64(asm: Asm) -> None:
    asm.state(Row(kind="end"))
    asm.emit("0f01f8")  # swapgs
    asm.label("entry_SYSCALL_64_after_hwframe")
    asm.state(Row(kind="iret"))
    asm.emit("50")
    asm.state(Row(offset=8, kind="iret"))
    asm.emit(_PUSH_REGS)
    asm.state(Row(kind="regs"))
    asm.emit("4889e7 4863f0")  # mov %rsp, %rdi; movslq %eax, %rsi
    asm.call("do_syscall_64")
    asm.emit("488b4c2458 0f01f8 480f07")  # ...; swapgs; sysretq


def _asm_exc_page_fault(asm: Asm) -> None:
    asm.state(Row(offset=8, kind="iret"))
    asm.emit("fc")  # cld
    asm.emit(_PUSH_REGS)
    asm.state(Row(kind="regs"))
    asm.emit("4889e7 488b742478")  # mov %rsp, %rdi; mov 0x78(%rsp), %rsi
    asm.call("exc_page_fault")
    asm.emit("48cf")  # iretq


def _ret_from_fork(asm: Asm) -> None:
    asm.state(Row(kind="end"))
    asm.emit("4889c7")
    asm.call("schedule_tail")
    asm.emit("4885db 750a")  # test %rbx, %rbx; jne 1f
    asm.state(Row(kind="regs"))
    asm.emit("4889e7")
    asm.call("syscall_exit_to_user_mode")
    asm.emit("48cf")
    asm.state(Row(kind="end"))
    asm.emit("4c89e7")  # 1: mov %r12, %rdi
    asm.call_indirect("ffd3", "*")  # call *%rbx
    asm.emit("48c744245000000000 ebe5")


def _bringup(target: str) -> Handwritten:
    def emit(asm: Asm) -> None:
        asm.state(Row(kind="end"))
        asm.emit("31ed")  # xor %ebp, %ebp
        asm.call(target)
        asm.emit("0f0b")  # ud2

    return emit


def _hypercall_page(asm: Asm) -> None:
    """As Xen fills it for 64-bit PV: the stubs push two registers, which the kernel's ORC ignores.

    ``arch/x86/xen/xen-head.S`` gives each stub the hint of a function that has pushed nothing.
    """
    names = {SCHED_OP: "sched_op", 32: "event_channel_op", 24: "vcpu_op", 1: "mmu_update"}
    asm.state(Row(offset=8))
    for number in range(128):
        if number in names:
            asm.label(f"xen_hypercall_{names[number]}", 32)
        code = bytes.fromhex("51 4153 b8") + number.to_bytes(4, "little")
        asm.emit((code + bytes.fromhex("0f05 415b 59 c3")).ljust(32, b"\xcc"))


HYPERCALL_RETURN = 10  # of ``syscall`` in a stub, from its start


def spec() -> Spec:
    """The kernel."""
    types = parse(TYPES + VARIABLES, X86_64)
    sp_offset = types.offset("task_struct.thread.sp")
    recipe = Recipe(
        word=8,
        base=TEXT,
        chains=[
            *SLEEPS.values(),
            *RUNNING.values(),
            ("__switch_to", "finish_task_switch.isra.0"),
            ("schedule_tail", "finish_task_switch.isra.0"),
        ],
        frames={
            "__schedule": Frame(("rbp", "r15", "r14", "r13", "r12", "rbx"), 48, True),
            "do_syscall_64": Frame(("rbp", "r12", "rbx"), 16),
            "schedule": Frame(("rbx",), 0),
            "schedule_idle": Frame(("rbx",), 0),
            "kthread": Frame(("r15", "r14", "r13", "r12", "rbp", "rbx"), 0),
            "xen_safe_halt": Frame(),
            "default_idle": Frame(),
            "sysrq_handle_crash": Frame(),
        },
        handwritten={
            "__switch_to_asm": _switch_to_asm(sp_offset),
            "entry_SYSCALL_64": _entry_syscall_64,
            "asm_exc_page_fault": _asm_exc_page_fault,
            "ret_from_fork": _ret_from_fork,
            "asm_cpu_bringup_and_idle": _bringup("cpu_bringup_and_idle"),
            "startup_xen": _bringup("xen_start_kernel"),
            "hypercall_page": _hypercall_page,
        },
        labels=("xen_hypercall_sched_op",),
        indirect={
            "do_syscall_64": "ffd0 0f1f00",
            "kthread": "ffd3",
            "proc_reg_write": "ffd0",
            "vfs_write": "41ffd2",
            "vfs_read": "ffd0",
            "notifier_call_chain": "ffd2",
            "__handle_sysrq": "ff5010",
        },
    )
    return Spec(
        release=RELEASE,
        version=VERSION,
        banner=BANNER,
        types=types,
        layout=elf.ELF64,
        machine=elf.EM_X86_64,
        recipe=recipe,
        rodata=RODATA,
        data=DATA,
        percpu=0,
        bss=BSS,
        map_base=KERNEL_MAP,
        page_offset=PAGE_OFFSET,
        aliases={
            "jiffies": "jiffies_64",
            "init_thread_union": "init_stack",
        },
        has_btf=True,
        build_id=True,
    )
