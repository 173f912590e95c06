//! Labels within functions, which kallsyms does not distinguish from functions.
//!
//! Assembly code has labels in the middle of functions. In the symbol table of a vmlinux they have
//! neither a type nor a size.

use std::collections::HashSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};

use crate::addr::{VirtAddr, Word};
use crate::alloc;
use crate::image::kallsyms::{Kallsyms, Symbol};
use crate::limits::MAX_LABEL_INSTRUCTIONS;
use crate::memory::Memory;

/// Functions start at multiples of it, but for those that are rarely executed.
const ALIGNMENT: u64 = 16;
/// Code before a label that is decoded.
const MAX_CODE: u64 = 1 << 10;

/// `SYM_INNER_LABEL` of arch/x86 after code that does not run on into the label.
const KNOWN: [&[u8]; 12] = [
    b"common_interrupt_return",
    b"common_startup_64",
    b"end_repeat_nmi",
    b"entry_SYSCALL_64_after_hwframe",
    b"entry_SYSCALL_compat_after_hwframe",
    b"entry_SYSENTER_compat_after_hwframe",
    b"first_nmi",
    b"native_irq_return_iret",
    b"repeat_nmi",
    b"restore_regs_and_return_to_kernel",
    b"secondary_startup_64_no_verify",
    b"swapgs_restore_regs_and_return_to_usermode",
];

/// 64-bit words of a filter that excludes most addresses that are not labels. There are few labels.
const SEEN: usize = 512;

/// Addresses of labels. Every symbol is looked up.
pub(super) struct Labels {
    addresses: HashSet<u64, foldhash::fast::RandomState>,
    /// A bit for the low bits of each address.
    seen: [u64; SEEN],
}

impl Labels {
    fn new() -> Self {
        Self {
            addresses: HashSet::default(),
            seen: [0; SEEN],
        }
    }

    fn add(&mut self, address: u64) {
        let (number, bit) = place(address);
        if let Some(bits) = self.seen.get_mut(number) {
            *bits |= bit;
        }
        alloc::insert(&mut self.addresses, address);
    }

    /// Whether an address is that of a label.
    pub fn contains(&self, address: u64) -> bool {
        let (number, bit) = place(address);
        let may_be = self.seen.get(number).is_some_and(|bits| bits & bit != 0);
        may_be && self.addresses.contains(&address)
    }
}

/// The number and the bit of an address in `Labels::seen`.
fn place(address: u64) -> (usize, u64) {
    let number = address / u64::from(u64::BITS) % SEEN as u64;
    (number as usize, 1 << (address % u64::from(u64::BITS)))
}

/// The addresses of labels: known ones, and those into which the code before them runs.
pub(super) fn find(memory: &dyn Memory<VirtAddr>, kallsyms: &Kallsyms) -> Labels {
    // The memory of init code is used for other things once the kernel runs. No code is between the
    // two symbols; a dump may lack one of them.
    let [text, init] = kallsyms.get(["_etext", "_sinittext"]);
    let end = text.or(init).unwrap_or(0);
    let mut code = alloc::collect(kallsyms.symbols.iter().filter(is_code));
    code.sort_unstable_by_key(|symbol| (symbol.address, symbol.name));
    let mut budget = MAX_LABEL_INSTRUCTIONS;
    let mut labels = Labels::new();
    for symbol in KNOWN.iter().flat_map(|name| kallsyms.named(name)) {
        if is_code(&symbol) {
            labels.add(symbol.address);
        }
    }
    for pair in code.windows(2) {
        let [before, symbol] = pair else { continue };
        if symbol.address >= end {
            break;
        }
        let unaligned = symbol.address % ALIGNMENT != 0;
        let distance = symbol.address - before.address;
        // A compiler's name, as of the parts of functions that are moved away.
        let compiled = || kallsyms.name(symbol).contains(&b'.');
        if unaligned && !compiled() && (1..=MAX_CODE).contains(&distance) {
            let mut bytes = vec![0; distance as usize];
            let read = memory.read(VirtAddr(before.address), &mut bytes);
            if read.is_ok() && runs_on(&bytes, kallsyms.word, before.address, &mut budget) {
                labels.add(symbol.address);
            }
        }
    }
    labels
}

fn is_code(symbol: &&Symbol) -> bool {
    matches!(symbol.letter, b't' | b'T' | b'w' | b'W')
}

/// Whether code is complete instructions, and the last of them leads to what follows.
fn runs_on(code: &[u8], word: Word, start: u64, budget: &mut usize) -> bool {
    let bits = 8 * word.bytes() as u32;
    let mut decoder = Decoder::with_ip(bits, code, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut last = Mnemonic::INVALID;
    let mut flow = FlowControl::Return;
    while decoder.can_decode() {
        if *budget == 0 {
            return false;
        }
        *budget -= 1;
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return false;
        }
        last = instruction.mnemonic();
        flow = instruction.flow_control();
    }
    // After a call of a function that does not return another function may follow.
    let leads = matches!(flow, FlowControl::Next | FlowControl::ConditionalBranch);
    leads && !matches!(last, Mnemonic::Nop | Mnemonic::Hlt | Mnemonic::INVALID)
}
