//! Functions of Linux and Xen without a caller. A stack ends with them, even if no unwind data marks
//! its end.

use super::symbols::CodeSymbols;

/// Entry points, which are not called.
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

/// Called by init code, which is freed, or entered by a jump.
const OUTERMOST: [&str; 7] = [
    "rest_init",
    "start_kernel",
    "i386_start_kernel",
    "x86_64_start_kernel",
    "xen_start_kernel",
    "start_secondary",
    "cpu_bringup_and_idle",
];

/// Whether a frame of this function has no caller.
///
/// Entry code that became C is called by a stub named after it: `ret_from_fork` by
/// `ret_from_fork_asm` since Linux 6.5 (3aec4ecb3d1f, "x86: Rewrite ret_from_fork() in C").
pub(super) fn is_entry(name: &str, symbols: &dyn CodeSymbols) -> bool {
    ENTRIES.contains(&name) && symbols.start_of(&format!("{name}_asm")).is_none()
}

/// Whether a stack that ends with this function is complete.
pub(super) fn is_outermost(name: &str, symbols: &dyn CodeSymbols) -> bool {
    is_entry(name, symbols) || OUTERMOST.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::testing::Names;

    #[test]
    fn a_function_with_a_stub_is_not_an_entry() {
        let before = Names(vec![(0x1000, "ret_from_fork")]);
        let after = Names(vec![
            (0x1000, "ret_from_fork"),
            (0x2000, "ret_from_fork_asm"),
        ]);
        assert!(is_entry("ret_from_fork", &before));
        assert!(!is_entry("ret_from_fork", &after));
        assert!(!is_outermost("ret_from_fork", &after));
        assert!(is_entry("ret_from_fork_asm", &after));
        assert!(is_outermost("start_secondary", &after));
        assert!(!is_outermost("schedule", &before));
    }
}
