//! A stack as in a dump of 2006: Linux 2.6.18 as a 32-bit PV guest, without unwind data. A module's
//! timer faults in a softirq of the idle task, and the kernel panics.

use std::collections::BTreeMap;

use xenkdump::addr::{MachineAddr, VirtAddr, Word};
use xenkdump::memory::{Fault, Memory};
use xenkdump::unwind::{CodeSymbols, Frame, Function, How, Reg, Registers, Stack, Unwinder};

const TEXT: u64 = 0xc010_0000;
const HYPERCALL_PAGE: u64 = 0xc010_1000;
const MODULE: u64 = 0xd080_0000;
const STACK_TOP: u64 = 0xc03e_2000;

/// Code and a stack, as in a real kernel.
#[derive(Default)]
struct Kernel {
    bytes: BTreeMap<u64, u8>,
    /// Start, name, bytes of locals.
    functions: Vec<(u64, &'static str, u8)>,
    sp: u64,
}

impl Kernel {
    fn new() -> Self {
        let mut kernel = Kernel {
            sp: STACK_TOP,
            ..Kernel::default()
        };
        for page in [
            TEXT,
            HYPERCALL_PAGE,
            MODULE,
            STACK_TOP - 0x2000,
            STACK_TOP - 0x1000,
        ] {
            kernel.write(page, &[0; 0x1000]);
        }
        kernel
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.bytes.insert(at + i as u64, *byte);
        }
    }

    fn start(&self, name: &str) -> u64 {
        let found = self.functions.iter().find(|(_, known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no {name}")).0
    }

    /// Defines a function that pushes a register, allocates locals and calls each of `callees`, which
    /// must already be defined. An empty name is a call through a register.
    fn define(&mut self, at: u64, name: &'static str, locals: u8, callees: &[&str]) {
        let mut code = vec![0x53, 0x83, 0xec, locals];
        for callee in callees {
            let end = at + code.len() as u64 + 5;
            match *callee {
                "" => code.extend_from_slice(&[0x90, 0x90, 0x90, 0xff, 0xd2]),
                callee => {
                    code.push(0xe8);
                    let distance = self.start(callee).wrapping_sub(end) as u32;
                    code.extend_from_slice(&distance.to_le_bytes());
                }
            }
        }
        code.extend_from_slice(&[0x83, 0xc4, locals, 0x5b, 0xc3]);
        self.write(at, &code);
        self.functions.push((at, name, locals));
        self.functions.sort();
    }

    fn push(&mut self, value: u64) {
        self.sp -= 4;
        self.write(self.sp, &(value as u32).to_le_bytes());
    }

    /// Makes call number `call` of `caller`, whose frame exists. The callee sets up its frame, which
    /// contains a stale return address. Returns the return address.
    fn call(&mut self, caller: &str, number: u64, callee: &str) -> u64 {
        let ret = self.start(caller) + 4 + 5 * number + 5;
        self.push(ret);
        self.frame(callee);
        ret
    }

    fn frame(&mut self, name: &str) {
        let function = self.functions.iter().find(|(_, known, _)| *known == name);
        let locals = function.map_or(0, |(_, _, locals)| *locals);
        self.push(0xb0b);
        for word in 0..u64::from(locals / 4) {
            let stale = self.start("cpu_idle") + 9;
            self.push(if word == 1 { stale } else { 0 });
        }
    }

    /// The registers that entry code saves for an interrupted kernel: no stack pointer, since the
    /// stack does not change.
    fn pt_regs(&mut self, ip: u64) -> u64 {
        for value in [
            0x246,
            0x61,
            ip,
            0xffff_ffff,
            0x7b,
            0x7b,
            1,
            2,
            3,
            4,
            5,
            6,
            7,
        ] {
            self.push(value);
        }
        self.sp
    }
}

impl Memory<VirtAddr> for Kernel {
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> Result<(), Fault> {
        for (i, byte) in buf.iter_mut().enumerate() {
            let at = addr.0 + i as u64;
            *byte = *self
                .bytes
                .get(&at)
                .ok_or(Fault::NoSegment(MachineAddr(at)))?;
        }
        Ok(())
    }
}

impl CodeSymbols for Kernel {
    fn function(&self, addr: VirtAddr) -> Option<Function<'_>> {
        let after = self
            .functions
            .partition_point(|(start, ..)| *start <= addr.0);
        let (start, name, _) = self.functions.get(after.checked_sub(1)?)?;
        Some(Function {
            name,
            start: VirtAddr(*start),
            size: None,
        })
    }

    fn start_of(&self, name: &str) -> Option<VirtAddr> {
        Some(VirtAddr(self.start(name)))
    }

    fn is_text(&self, addr: VirtAddr) -> bool {
        [TEXT..TEXT + 0x2000, MODULE..MODULE + 0x1000]
            .iter()
            .any(|range| range.contains(&addr.0))
    }
}

/// The kernel, the registers at the panic, and the true frames.
fn panicked_kernel() -> (Kernel, Registers, Vec<(&'static str, u64, u64)>) {
    let mut k = Kernel::new();
    // Slots of 32 bytes: mov $number,%eax; int $0x82; ret.
    k.functions.push((HYPERCALL_PAGE, "hypercall_page", 0));
    for slot in [29, 37] {
        let stub = [0xb8, slot, 0, 0, 0, 0xcd, 0x82, 0xc3];
        k.write(HYPERCALL_PAGE + 32 * u64::from(slot), &stub);
    }
    let mut at = TEXT;
    let mut function = |k: &mut Kernel, name, locals, callees: &[&str]| {
        k.define(at, name, locals, callees);
        at += 0x80;
    };
    function(&mut k, "crash_kexec", 0x48, &["hypercall_page"]);
    function(&mut k, "die", 0x10, &["crash_kexec"]);
    function(&mut k, "do_page_fault", 0x54, &["die"]);
    function(&mut k, "run_timer_softirq", 0x14, &[""]);
    function(&mut k, "__do_softirq", 0x08, &[""]);
    function(&mut k, "do_softirq", 0x04, &["__do_softirq"]);
    function(&mut k, "irq_exit", 0x00, &["do_softirq"]);
    function(&mut k, "do_IRQ", 0x08, &["", "irq_exit"]);
    function(&mut k, "evtchn_do_upcall", 0x1c, &["do_IRQ"]);
    function(&mut k, "xen_idle", 0x04, &["hypercall_page"]);
    function(&mut k, "cpu_idle", 0x08, &["xen_idle"]);
    function(&mut k, "start_kernel", 0x10, &["cpu_idle"]);
    // Entry code: call *%edi with registers saved; push %esp, then call.
    let error_code = TEXT + 0xc00;
    k.write(error_code + 0x20, &[0xff, 0xd7]);
    k.functions.push((error_code, "error_code", 0));
    let callback = TEXT + 0xc80;
    let distance = k.start("evtchn_do_upcall").wrapping_sub(callback + 0x20) as u32;
    k.write(callback + 0x1a, &[0x54, 0xe8]);
    k.write(callback + 0x1c, &distance.to_le_bytes());
    k.functions.push((callback, "hypervisor_callback", 0));
    k.functions.sort();
    k.define(MODULE, "mod_timer_fn", 0x0c, &[]);

    let mut true_frames = Vec::new();
    let mut seen = |name, pc, sp| true_frames.insert(0, (name, pc, sp));
    // The idle task of CPU 0.
    k.frame("start_kernel");
    let sp = k.sp;
    let pc = k.call("start_kernel", 0, "cpu_idle");
    seen("start_kernel", pc, sp);
    let sp = k.sp;
    let pc = k.call("cpu_idle", 0, "xen_idle");
    seen("cpu_idle", pc, sp);
    let sp = k.sp;
    k.push(k.start("xen_idle") + 9);
    seen("xen_idle", k.start("xen_idle") + 9, sp);
    // An event arrives during the blocking hypercall.
    let idle = HYPERCALL_PAGE + 32 * 29 + 7;
    seen("hypercall_page", idle, k.sp);
    let saved = k.pt_regs(idle);
    k.push(saved);
    seen("hypervisor_callback", callback + 0x20, k.sp);
    k.push(callback + 0x20);
    k.frame("evtchn_do_upcall");
    for (caller, number, callee) in [
        ("evtchn_do_upcall", 0, "do_IRQ"),
        ("do_IRQ", 1, "irq_exit"),
        ("irq_exit", 0, "do_softirq"),
        ("do_softirq", 0, "__do_softirq"),
        ("__do_softirq", 0, "run_timer_softirq"),
        ("run_timer_softirq", 0, "mod_timer_fn"),
    ] {
        let sp = k.sp;
        let pc = k.call(caller, number, callee);
        seen(caller, pc, sp);
    }
    // The module's function faults after its prologue.
    seen("mod_timer_fn", MODULE + 4, k.sp);
    k.pt_regs(MODULE + 4);
    seen("error_code", error_code + 0x22, k.sp);
    k.push(error_code + 0x22);
    k.frame("do_page_fault");
    for (caller, callee) in [("do_page_fault", "die"), ("die", "crash_kexec")] {
        let sp = k.sp;
        let pc = k.call(caller, 0, callee);
        seen(caller, pc, sp);
    }
    let sp = k.sp;
    k.push(k.start("crash_kexec") + 9);
    seen("crash_kexec", k.start("crash_kexec") + 9, sp);
    let kexec_op = HYPERCALL_PAGE + 0x4a7;
    seen("hypercall_page", kexec_op, k.sp);
    let mut registers = Registers::at(VirtAddr(kexec_op), VirtAddr(k.sp));
    registers.set(Reg::Cs, 0x61);
    (k, registers, true_frames)
}

#[test]
fn all_frames_of_the_panicked_idle_task_are_found() {
    let (kernel, registers, expected) = panicked_kernel();
    let unwinder = Unwinder::new(Word::W32, Some((2, 6, 18)));
    let found = unwinder.unwind(&Stack {
        memory: &kernel,
        symbols: &kernel,
        registers,
        exact: true,
        bounds: &[],
        limit: 256,
    });
    let name = |frame: &Frame| kernel.function(frame.lookup_pc()).unwrap().name;
    let frames: Vec<_> = found
        .frames
        .iter()
        .map(|frame| (name(frame), frame.pc.0, frame.sp.0))
        .collect();
    assert_eq!(frames, expected);
    assert_eq!(found.stopped, None);
    let interrupted = |frame: &&Frame| frame.interrupted;
    let stood: Vec<_> = found.frames.iter().filter(interrupted).map(name).collect();
    assert_eq!(stood, ["hypercall_page", "mod_timer_fn", "hypercall_page"]);
    let hows: Vec<_> = found.frames[..2].iter().map(|frame| frame.how).collect();
    assert_eq!(hows, [How::Start, How::Leaf]);
}
