//! The functions that no other has called: a stack ends with them even where nothing says so.

/// Entered by no call at all.
const ENTRIES: [&str; 10] = [
    "ret_from_fork",
    "ret_from_fork_asm",
    "ret_from_kernel_thread",
    // Kernel threads before 3.8, of i386 and of x86_64.
    "kernel_thread_helper",
    "child_rip",
    "startup_xen",
    "startup_32_smp",
    "secondary_startup_64",
    "asm_cpu_bringup_and_idle",
    "__start_xen",
];

/// Called by code that was freed with the rest of the init code, or that jumps rather than calls.
const OUTERMOST: [&str; 7] = [
    "rest_init",
    "start_kernel",
    "i386_start_kernel",
    "x86_64_start_kernel",
    "xen_start_kernel",
    "start_secondary",
    "cpu_bringup_and_idle",
];

/// Whether no frame can come after one of this function.
pub(super) fn is_entry(name: &str) -> bool {
    ENTRIES.contains(&name)
}

/// Whether a stack that ends with this function is whole.
pub(super) fn is_outermost(name: &str) -> bool {
    is_entry(name) || OUTERMOST.contains(&name)
}
