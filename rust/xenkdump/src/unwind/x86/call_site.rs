//! Return addresses, recognized by the call instruction before them.

use crate::addr::{Address, VirtAddr, Word};
use crate::memory::Memory;
use crate::unwind::step::offset;
use crate::unwind::symbols::CodeSymbols;

/// A call instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::unwind) enum Call {
    /// `call rel32`.
    Direct(VirtAddr),
    /// Through a register or memory, to an unknown target.
    Indirect,
}

/// The length of the longest call that compilers emit: `ff /2` with a SIB byte and 32 bits of
/// displacement. A prefix adds to it, but need not be read.
const MAX_LENGTH: usize = 7;

/// The call whose return address is `ret`. If the bytes before `ret` are the end of both a direct
/// call to code and an indirect call, the direct one is returned.
///
/// Instructions cannot be decoded backwards, so this compares the few encodings of calls.
pub(in crate::unwind) fn call_before(
    memory: &dyn Memory<VirtAddr>,
    symbols: &dyn CodeSymbols,
    ret: VirtAddr,
    word: Word,
) -> Option<Call> {
    let mut bytes = [0; MAX_LENGTH];
    let start = VirtAddr(ret.raw().checked_sub(MAX_LENGTH as u64)?);
    let mut is_read = memory.read(start, &mut bytes).is_ok();
    if !is_read {
        // The page before may be missing. Most forms fit into five bytes.
        bytes = [0; MAX_LENGTH];
        let short = VirtAddr(ret.raw().checked_sub(5)?);
        is_read = memory.read(short, bytes.last_chunk_mut::<5>()?).is_ok();
    }
    if is_read {
        if let Some(call) = call_at_end(bytes, symbols, ret, word) {
            return Some(call);
        }
    }
    // Before init code is freed its calls may be patched. Afterwards only the image has them.
    if symbols.overlay_init_code(start, &mut bytes) != MAX_LENGTH {
        return None;
    }
    call_at_end(bytes, symbols, ret, word)
}

/// The call that these bytes, up to `ret`, end with.
fn call_at_end(
    bytes: [u8; MAX_LENGTH],
    symbols: &dyn CodeSymbols,
    ret: VirtAddr,
    word: Word,
) -> Option<Call> {
    let [_, _, opcode, d0, d1, d2, d3] = bytes;
    if opcode == 0xe8 {
        let distance = i32::from_le_bytes([d0, d1, d2, d3]);
        let target = offset(ret, distance.into(), word);
        if symbols.is_text(target) {
            return Some(match symbols.function(target) {
                Some(thunk) if is_indirect_thunk(thunk.name) => Call::Indirect,
                _ => Call::Direct(target),
            });
        }
    }
    is_indirect_call(&bytes).then_some(Call::Indirect)
}

/// Whether this is a retpoline: calls to it are calls through the register it is named after.
fn is_indirect_thunk(name: &str) -> bool {
    name.starts_with("__x86_indirect_")
}

/// Whether `bytes` ends with `ff /2`: opcode, ModRM, optional SIB byte and displacement.
fn is_indirect_call(bytes: &[u8; MAX_LENGTH]) -> bool {
    (2..=MAX_LENGTH).any(|length| {
        let Some([0xff, modrm, rest @ ..]) = bytes.get(MAX_LENGTH - length..) else {
            return false;
        };
        if (modrm >> 3) & 7 != 2 {
            return false;
        }
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let sib = mode != 3 && rm == 4;
        let base = if sib {
            rest.first().map_or(0, |sib| sib & 7)
        } else {
            rm
        };
        let displacement = match mode {
            0 if base == 5 => 4,
            1 => 1,
            2 => 4,
            _ => 0,
        };
        rest.len() == usize::from(sib) + displacement
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::symbols::Function;
    use crate::unwind::testing::{Names, Ram};

    fn call(code: &[u8]) -> Option<Call> {
        let mut ram = Ram::new(Word::W64);
        let end = 0xffff_ffff_8100_0100;
        ram.bytes(end - 0x100, &[0x90; 0x100]);
        ram.bytes(end - code.len() as u64, code);
        let names = Names(vec![
            (0xffff_ffff_8100_0000, "caller"),
            (0xffff_ffff_8100_1000, "callee"),
            (0xffff_ffff_8100_2000, "__x86_indirect_thunk_rax"),
            (0xffff_ffff_8100_3000, ""),
        ]);
        call_before(&ram, &names, VirtAddr(end), Word::W64)
    }

    #[test]
    fn a_direct_call_has_its_target() {
        assert_eq!(
            call(&[0xe8, 0x00, 0x0f, 0, 0]),
            Some(Call::Direct(VirtAddr(0xffff_ffff_8100_1000)))
        );
        assert_eq!(call(&[0xe8, 0x00, 0x1f, 0, 0]), Some(Call::Indirect));
        assert_eq!(call(&[0xe8, 0x00, 0x00, 0, 0x10]), None, "not to code");
    }

    /// Init code that was freed: memory has other data, the image has the call.
    struct Freed(Vec<u8>);

    impl CodeSymbols for Freed {
        fn function(&self, _addr: VirtAddr) -> Option<Function<'_>> {
            None
        }

        fn start_of(&self, _name: &str) -> Option<VirtAddr> {
            None
        }

        fn is_text(&self, _addr: VirtAddr) -> bool {
            true
        }

        fn overlay_init_code(&self, addr: VirtAddr, code: &mut [u8]) -> usize {
            let at = (addr.raw() - CODE) as usize;
            let part = self.0.get(at..at + code.len()).unwrap_or_default();
            code[..part.len()].copy_from_slice(part);
            part.len()
        }
    }

    const CODE: u64 = 0xc100_0000;

    #[test]
    fn a_call_in_freed_code_is_that_of_the_image() {
        let mut image = vec![0x90; 64];
        image[11..16].copy_from_slice(&[0xe8, 0xf0, 0, 0, 0]);
        let before = |symbols: &dyn CodeSymbols, code: &[u8]| {
            let mut ram = Ram::new(Word::W32);
            ram.bytes(CODE, code);
            call_before(&ram, symbols, VirtAddr(CODE + 16), Word::W32)
        };
        let direct = Some(Call::Direct(VirtAddr(CODE + 0x100)));
        for poison in [0, 0xcc] {
            assert_eq!(before(&Freed(image.clone()), &[poison; 64]), direct);
            assert_eq!(before(&Freed(vec![0x90; 64]), &[poison; 64]), None);
        }
        assert_eq!(
            before(&Freed(image.clone()), &[]),
            direct,
            "not in the dump"
        );
        // Not freed yet, and patched.
        let mut patched = image.clone();
        patched[10..16].copy_from_slice(&[0x90, 0x90, 0x90, 0x90, 0xff, 0xd0]);
        assert_eq!(before(&Freed(image), &patched), Some(Call::Indirect));
    }

    #[test]
    fn every_form_of_an_indirect_call_is_recognized() {
        for code in [
            &[0xff, 0xd0][..],                  // call *%rax
            &[0x41, 0xff, 0xd3],                // call *%r11
            &[0xff, 0x10],                      // call *(%rax)
            &[0xff, 0x50, 0x18],                // call *0x18(%rax)
            &[0xff, 0x54, 0x24, 0x08],          // call *8(%rsp)
            &[0xff, 0x14, 0xc1],                // call *(%rcx,%rax,8)
            &[0xff, 0x14, 0xc5, 0, 0, 0, 0x82], // call *-0x7e000000(,%rax,8)
            &[0xff, 0x15, 1, 2, 3, 4],          // call *0x4030201(%rip)
            &[0xff, 0x90, 0, 1, 0, 0],          // call *0x100(%rax)
            &[0xff, 0x94, 0xc1, 0, 1, 0, 0],    // call *0x100(%rcx,%rax,8)
        ] {
            assert_eq!(call(code), Some(Call::Indirect), "{code:x?}");
        }
        for code in [
            &[0xff, 0xe0][..],
            &[0xff, 0x50],
            &[0xff, 0x15, 1, 2, 3],
            &[0xc3],
        ] {
            assert_eq!(call(code), None, "{code:x?}");
        }
    }
}
