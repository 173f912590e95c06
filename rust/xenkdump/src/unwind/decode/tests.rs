//! Instructions as assemblers write them.

use super::*;

fn one(code: &[u8], word: Word) -> Effect {
    let mut padded = code.to_vec();
    padded.extend([0xcc; 8]);
    let found = decode(&padded, word).unwrap_or_else(|| panic!("{code:x?} not decoded"));
    assert_eq!(found.length, code.len(), "{code:x?}");
    found.effect
}

#[test]
fn what_moves_the_stack_pointer_is_seen() {
    use Effect::{Leave, LoseStack, PopFrame, PushFrame, SetFrame, Stack, ToFrame};
    for (code, effect) in [
        (&[0x55][..], PushFrame),
        (&[0x41, 0x55], Stack(-8)),
        (&[0x41, 0x57], Stack(-8)),
        (&[0x5b], Stack(8)),
        (&[0x5d], PopFrame),
        (&[0x41, 0x5d], Stack(8)),
        (&[0x48, 0x83, 0xec, 0x18], Stack(-0x18)),
        (&[0x48, 0x81, 0xec, 0, 1, 0, 0], Stack(-0x100)),
        (&[0x48, 0x83, 0xc4, 0x80], Stack(-0x80)),
        (&[0x48, 0x8d, 0x64, 0x24, 0xf8], Stack(-8)),
        (&[0x48, 0x89, 0xe5], SetFrame),
        (&[0x48, 0x8d, 0x65, 0xd8], ToFrame(-0x28)),
        (&[0xc9], Leave),
        (&[0x48, 0x83, 0xe4, 0xf0], LoseStack),
        (&[0x48, 0x89, 0xdc], LoseStack),
        (&[0x49, 0x89, 0xec], Effect::None),
        (&[0x4c, 0x89, 0xe5], Effect::LoseFrame),
        (&[0xff, 0x75, 0x10], Stack(-8)),
        (&[0x6a, 0xff], Stack(-8)),
    ] {
        assert_eq!(one(code, Word::W64), effect, "{code:x?}");
    }
    for (code, effect) in [
        (&[0x83, 0xec, 0x10][..], Stack(-0x10)),
        (&[0x89, 0xe5], SetFrame),
        (&[0x68, 1, 2, 3, 4], Stack(-4)),
        (&[0x9c], Stack(-4)),
        (&[0x60], Stack(-32)),
        (&[0x1e], Stack(-4)),
        (&[0x87, 0xdc], LoseStack),
        (&[0x8d, 0x65, 0xf4], ToFrame(-12)),
    ] {
        assert_eq!(one(code, Word::W32), effect, "{code:x?}");
    }
}

#[test]
fn lengths_are_right_whatever_the_operands() {
    for code in [
        &[0x65, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0][..], // mov %gs:0x28,%rax
        &[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8],              // movabs
        &[0x66, 0xc7, 0x47, 0x10, 1, 0],                    // movw $1,0x10(%rdi)
        &[0xf0, 0x0f, 0xba, 0x2f, 0x05],                    // lock bts $5,(%rdi)
        &[0x0f, 0xb6, 0x84, 0x0a, 0, 1, 0, 0],              // movzbl 0x100(%rdx,%rcx),%eax
        &[0xf6, 0x47, 0x2c, 0x20],                          // testb $0x20,0x2c(%rdi)
        &[0xf7, 0xd8],                                      // neg %eax
        &[0x81, 0x3d, 1, 2, 3, 4, 5, 6, 7, 8],              // cmpl $n,m(%rip)
        &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],     // nop
        &[0xf3, 0x0f, 0x1e, 0xfa],                          // endbr64
        &[0xe8, 1, 2, 3, 4],                                // call
        &[0xf3, 0x48, 0xab],                                // rep stos
        &[0x48, 0x8b, 0x04, 0xc5, 0, 0, 0, 0x82],           // mov n(,%rax,8),%rax
    ] {
        assert_eq!(one(code, Word::W64), Effect::None, "{code:x?}");
    }
    for code in [
        &[0xa1, 1, 2, 3, 4][..],   // mov m,%eax
        &[0x64, 0xa1, 1, 2, 3, 4], // mov %fs:m,%eax
        &[0x40],                   // inc %eax
        &[0x8b, 0x54, 0x24, 0x10], // mov 0x10(%esp),%edx
        &[0xc7, 0x04, 0x24, 1, 2, 3, 4],
    ] {
        assert_eq!(one(code, Word::W32), Effect::None, "{code:x?}");
    }
}

#[test]
fn the_flow_of_control_is_seen() {
    assert_eq!(one(&[0xeb, 0xfe], Word::W64), Effect::Jump(-2));
    assert_eq!(
        one(&[0x0f, 0x84, 0, 1, 0, 0], Word::W64),
        Effect::Branch(0x100)
    );
    assert_eq!(one(&[0x74, 0x10], Word::W32), Effect::Branch(0x10));
    assert_eq!(one(&[0xf3, 0xc3], Word::W64), Effect::Return);
    assert_eq!(one(&[0xff, 0xe0], Word::W64), Effect::Return);
    assert_eq!(
        one(&[0xff, 0x24, 0x85, 0, 0, 0, 0xc1], Word::W32),
        Effect::JumpTable
    );
    assert_eq!(one(&[0x0f, 0x0b], Word::W64), Effect::Trap);
}

#[test]
fn code_that_ends_too_early_is_not_decoded() {
    let long = [0x48, 0x81, 0xbc, 0xc1, 1, 2, 3, 4, 5, 6, 7, 8];
    for length in 0..long.len() {
        assert_eq!(decode(&long[..length], Word::W64), None);
    }
    assert!(decode(&long, Word::W64).is_some());
    assert_eq!(decode(&[0x66; 64], Word::W64), None);
}
