"""Functions that are not part of a fault: data of the normal form.

Names are normal forms (``normal_form.name``). An entry that ends with ``*`` is a prefix. A change
here changes signatures, so it increments ``normal_form.VERSION``.
"""

#: Kinds whose stack is that of whoever was there: memory that is exhausted, broken hardware.
KINDS_WITHOUT_STACK = frozenset(
    ("out-of-memory", "machine-check", "nmi", "xen-machine-check", "xen-crashdump-key")
)
#: Kinds that a timer or an NMI detects, in a context of their own.
LOCKUPS = frozenset(("soft-lockup", "hard-lockup", "rcu-stall", "xen-watchdog"))

#: What the kernel calls when a fault has happened. It and all that it called are left out.
_REACTIONS = """
panic vpanic nmi_panic dump_stack dump_stack_lvl __dump_stack show_stack show_trace show_registers
show_regs show_stack_log_lvl show_trace_log_lvl show_call_trace
die __die die_addr __die_body __die_header oops_begin oops_end oops_may_print
crash_kexec __crash_kexec machine_kexec xen_machine_kexec machine_crash_shutdown
native_machine_crash_shutdown crash_setup_regs kexec_crash_image relocate_kernel
page_fault_oops no_context __bad_area __bad_area_nosemaphore bad_area bad_area_nosemaphore
kernelmode_fixup_or_oops spurious_kernel_fault bad_area_access_error do_kern_addr_fault
__warn __warn_printk warn_slowpath_fmt warn_slowpath_null warn_slowpath_common
warn_slowpath_fmt_common check_panic_on_warn report_bug __report_bug handle_bug fixup_bug
exc_invalid_op do_invalid_op do_error_trap do_trap do_trap_no_signal handle_invalid_op invalid_op
asm_exc_invalid_op
kasan_report __kasan_report kasan_report_error kasan_object_err print_report end_report
kasan_end_report print_address_description kasan_report_invalid_free kasan_check_range
check_memory_region check_memory_region_inline __asan_* __hwasan_* kasan_access*
kasan_bug_type ubsan_epilogue __ubsan_handle_* kmsan_report __msan_warning
nmi_cpu_backtrace nmi_trigger_cpumask_backtrace arch_trigger_cpumask_backtrace
trigger_all_cpu_backtrace trigger_single_cpu_backtrace rcu_dump_cpu_stacks sched_show_task
dump_cpu_task print_cpu_stall print_other_cpu_stall check_cpu_stall
__stack_chk_fail stackleak_track_stack handle_stack_overflow
df_debug doublefault_shim doublefault_fn exc_double_fault do_double_fault asm_exc_double_fault
double_fault
kexec_crash kexec_crash_save_cpu fatal_trap show_execution_state show_code show_stack_overflow
do_bug_frame machine_restart __bug bust_spinlocks
early_page_fault init_idt_traps
"""

#: Where a context begins: what is outwards of these is what it interrupted, or what started it.
_ENTRIES = """
entry_SYSCALL_64* entry_SYSENTER_32 entry_INT80_32 entry_INT80_compat entry_SYSENTER_compat*
entry_SYSCALL_compat* do_syscall_64 x64_sys_call x32_sys_call ia32_sys_call do_int80_syscall_32
__do_fast_syscall_32 do_fast_syscall_32 do_SYSENTER_32 do_syscall_32_irqs_on do_syscall_x64
do_int80_emulation system_call* tracesys sysenter_past_esp syscall_call sysenter_do_call
int_ret_from_sys_call cstar_dispatch ia32_sysret stub_* ret_from_sys_call
ret_from_fork* kernel_thread_helper kthread child_rip kernel_thread_starter
worker_thread process_one_work process_scheduled_works run_workqueue rescuer_thread
smpboot_thread_fn run_ksoftirqd do_softirq __do_softirq handle_softirqs do_softirq_own_stack
call_softirq irq_exit irq_exit_rcu __irq_exit_rcu invoke_softirq __local_bh_enable_ip
local_bh_enable asm_call_on_stack asm_call_irq_on_stack asm_call_sysvec_on_stack
run_irq_on_irqstack_cond
common_interrupt __common_interrupt do_IRQ ret_from_intr asm_common_interrupt handle_irq
__handle_irq_event_percpu handle_irq_event_percpu handle_irq_event handle_edge_irq
handle_fasteoi_irq handle_percpu_irq handle_level_irq handle_simple_irq handle_irq_desc
generic_handle_irq* irq_thread irq_thread_fn
smp_call_function_interrupt smp_call_function_single_interrupt
sysvec_* __sysvec_* asm_sysvec_*
smp_apic_timer_interrupt smp_reschedule_interrupt apic_timer_interrupt reschedule_interrupt
call_function_interrupt call_function_single_interrupt irq_work_interrupt xen_do_upcall
xen_do_hypervisor_callback xen_hypervisor_callback xen_evtchn_do_upcall __xen_evtchn_do_upcall
xen_pv_evtchn_do_upcall exc_xen_hypervisor_callback asm_exc_xen_hypervisor_callback
exc_page_fault asm_exc_page_fault do_page_fault __do_page_fault page_fault do_user_addr_fault
do_async_page_fault async_page_fault trace_do_page_fault trace_page_fault error_code
exc_general_protection asm_exc_general_protection do_general_protection general_protection
exc_divide_error asm_exc_divide_error do_divide_error divide_error
exc_* asm_exc_* asm_load_gs_index xen_page_fault xen_general_protection xen_asm_exc_*
nmi do_nmi default_do_nmi exc_nmi asm_exc_nmi nmi_handle end_repeat_nmi first_nmi nmi_stack_correct
notify_die atomic_notifier_call_chain notifier_call_chain __atomic_notifier_call_chain
secondary_startup_64* startup_64 x86_64_start_kernel x86_64_start_reservations i386_start_kernel
start_kernel start_secondary cpu_startup_entry cpu_bringup_and_idle asm_cpu_bringup_and_idle
cpu_bringup rest_init do_idle cpu_idle cpuidle_idle_call xen_start_kernel
kernel_init kernel_init_freeable do_one_initcall do_initcalls do_basic_setup
pv_hypercall lstar_enter cstar_enter syscall_enter sysenter_eflags_saved entry_int82 hvm_hypercall
vmx_asm_vmexit_handler vmx_asm_do_vmentry svm_asm_do_resume svm_stgi_label svm_vmexit_handler_entry
idle_loop __start_xen __high_start handle_exception_saved handle_exception
handle_ist_exception do_nmi_crash compat_hypercall
"""

#: How a task of Linux is blocked. Xen has functions of the same names.
_SCHEDULING = """
__switch_to* __schedule __sched_text_start schedule schedule_timeout schedule_timeout_*
schedule_preempt_disabled io_schedule io_schedule_timeout schedule_hrtimeout* context_switch
preempt_schedule* __cond_resched
"""

#: Helpers that say nothing about the fault, or that depend on the processor or the configuration.
_GENERIC = """
_raw_spin_lock* __raw_spin_lock* _raw_read_lock* _raw_write_lock* _raw_spin_unlock* _spin_lock*
_spin_unlock* queued_spin_lock_slowpath native_queued_spin_lock_slowpath
__pv_queued_spin_lock_slowpath pv_queued_spin_lock_slowpath __raw_callee_save_* queued_read_lock_*
queued_write_lock_* do_raw_spin_lock ticket_spin_lock_slowpath xen_spin_lock*
__mutex_lock __mutex_lock_slowpath __mutex_lock_common __mutex_lock_killable_slowpath
__mutex_lock_interruptible_slowpath rwsem_down_write_slowpath rwsem_down_read_slowpath
rwsem_down_write_failed rwsem_down_read_failed call_rwsem_down_write_failed
call_rwsem_down_read_failed __down_write_common __down_read_common __down_common __down
do_wait_for_common __wait_for_common wait_for_common
memcpy memcpy_* __memcpy memset memset_* __memset memmove __memmove memmove_* copy_user_*
rep_movs_alternative rep_stos_alternative clear_page_* copy_page copy_page_* __copy_user_*
copy_from_user copy_to_user _copy_from_user _copy_to_user __clear_user
__x86_indirect_thunk_* __x86_return_thunk srso_* retbleed_* __indirect_thunk* __fentry__
ftrace_* xen_reboot xen_emergency_restart __const_udelay __delay delay_tsc
read_hpet native_safe_halt default_idle mwait_idle intel_idle acpi_idle_do_entry
__sanitizer_cov_* kasan_* __kasan_*
__vfs_read __vfs_write
native_* pv_native_* xen_hypercall_* hypercall_page __xen_hypercall_*
"""

#: What detects a lockup, in the timer's interrupt or in an NMI.
_DETECTION = """
watchdog_timer_fn watchdog softlockup_* watchdog_overflow_callback watchdog_hardlockup_check
watchdog_check_hardlockup_* is_softlockup perf_event_overflow __perf_event_overflow
perf_event_nmi_handler intel_pmu_handle_irq x86_pmu_handle_irq amd_pmu_* handle_pmi_common
intel_pmu_* __intel_pmu_* hrtimer_interrupt __hrtimer_run_queues __run_hrtimer hrtimer_run_queues
local_apic_timer_interrupt __apic_timer_interrupt tick_* update_process_times run_local_timers
rcu_sched_clock_irq rcu_check_callbacks rcu_pending __rcu_pending xen_timer_interrupt
nmi_watchdog_tick lapic_timer_* panic_on_rcu_stall
"""


class _Names:
    """A set of names and prefixes."""

    __slots__ = ("_names", "_prefixes")

    def __init__(self, words: str) -> None:
        listed = words.split()
        self._names = frozenset(word for word in listed if not word.endswith("*"))
        self._prefixes = tuple(word[:-1] for word in listed if word.endswith("*"))

    def __contains__(self, name: str) -> bool:
        return name in self._names or name.startswith(self._prefixes)


_reactions, _entries = _Names(_REACTIONS), _Names(_ENTRIES)
_generic, _detection = _Names(_GENERIC), _Names(_DETECTION)
_scheduling = _Names(_SCHEDULING)


def is_reaction(name: str) -> bool:
    """Whether the kernel calls it when a fault has happened."""
    return name in _reactions


def is_entry(name: str) -> bool:
    """Whether a context begins with it."""
    return name in _entries


def is_generic(name: str, kind: str) -> bool:
    """Whether it says nothing about a fault of this kind."""
    if name in _scheduling:
        return not kind.startswith("xen-")
    return name in _generic or (kind in LOCKUPS and name in _detection)
