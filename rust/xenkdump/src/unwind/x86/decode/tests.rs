//! Instructions as assemblers encode them.

use super::*;

const PC: VirtAddr = VirtAddr(0xc100_0000);

fn one(code: &[u8], word: Word) -> Effect {
    let mut padded = code.to_vec();
    padded.extend([0xcc; 8]);
    let found = decode(&padded, PC, word).unwrap_or_else(|| panic!("{code:x?} not decoded"));
    assert_eq!(found.length, code.len(), "{code:x?}");
    found.effect
}

#[test]
fn effects_on_the_stack_pointer_are_decoded() {
    use Effect::{
        Leave, LoseStack, PopFrame, PopStack, PushFrame, SetFrame, SetStack, Stack, ToFrame,
    };
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
        (&[0x48, 0x89, 0xdc], SetStack(Reg::Bx)),
        (&[0x4c, 0x89, 0xd4], SetStack(Reg::R10)),
        (&[0x5c], PopStack),
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
fn lengths_include_all_operands() {
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
fn the_flow_of_control_is_decoded() {
    assert_eq!(one(&[0xeb, 0xfe], Word::W64), Effect::Jump(PC));
    assert_eq!(
        one(&[0x0f, 0x84, 0, 1, 0, 0], Word::W64),
        Effect::Branch(VirtAddr(0xc100_0106))
    );
    assert_eq!(
        one(&[0x74, 0x10], Word::W32),
        Effect::Branch(VirtAddr(0xc100_0012))
    );
    assert_eq!(one(&[0xf3, 0xc3], Word::W64), Effect::Return);
    assert_eq!(one(&[0xff, 0xe0], Word::W64), Effect::Return);
    assert_eq!(
        one(&[0xff, 0x24, 0x85, 0, 0, 0, 0xc1], Word::W32),
        Effect::JumpTable
    );
    assert_eq!(one(&[0x0f, 0x0b], Word::W64), Effect::Trap);
}

/// Instructions of Linux 6.1 to 7.3 and Xen 4.17 that write the stack or frame pointer.
#[test]
fn writes_to_the_pointers_are_detected() {
    use Effect::{LoseFrame, LoseStack};
    for (code, effect) in [
        (&[0x48, 0xc1, 0xe5, 0x03][..], LoseFrame), // shl $3,%rbp
        (&[0x40, 0x0f, 0x94, 0xc5], LoseFrame),     // sete %bpl
        (&[0x48, 0xf7, 0xd5], LoseFrame),           // not %rbp
        (&[0xff, 0xc5], LoseFrame),                 // inc %ebp
        (&[0x48, 0x0f, 0xba, 0xf5, 0x3f], LoseFrame), // btr $63,%rbp
        (&[0xf0, 0x48, 0x0f, 0xc1, 0x2b], LoseFrame), // lock xadd %rbp,(%rbx)
        (&[0x0f, 0x20, 0xdd], LoseFrame),           // mov %cr3,%rbp
        (&[0x89, 0xe5], LoseFrame),                 // mov %esp,%ebp
        (&[0xc4, 0xe2, 0xfb, 0xf6, 0xeb], LoseFrame), // mulx %rbx,%rax,%rbp
        (&[0x0f, 0x20, 0xdc], LoseStack),           // mov %cr3,%rsp
        (&[0x83, 0xec, 0x10], LoseStack),           // sub $16,%esp
        (&[0x85, 0xed], Effect::None),              // test %ebp,%ebp
        (&[0x48, 0x0f, 0xa3, 0xc5], Effect::None),  // bt %rax,%rbp
        (&[0x48, 0x89, 0x6b, 0x08], Effect::None),  // mov %rbp,8(%rbx)
    ] {
        assert_eq!(one(code, Word::W64), effect, "{code:x?}");
    }
    // lss (%esp),%esp
    assert_eq!(one(&[0x0f, 0xb2, 0x24, 0x24], Word::W32), LoseStack);
}

#[test]
fn vector_instructions_are_decoded() {
    for code in [
        &[0xc5, 0xf9, 0xef, 0xc0][..],         // vpxor %xmm0,%xmm0,%xmm0
        &[0xc4, 0xe3, 0x7d, 0x39, 0xc1, 0x01], // vextracti128 $1,%ymm0,%xmm1
        &[0x62, 0xf1, 0x7d, 0x48, 0xef, 0xc0], // vpxord %zmm0,%zmm0,%zmm0
        &[0x66, 0x0f, 0x38, 0xdc, 0xc1],       // aesenc %xmm1,%xmm0
    ] {
        assert_eq!(one(code, Word::W64), Effect::None, "{code:x?}");
        assert_eq!(one(code, Word::W32), Effect::None, "{code:x?}");
    }
}

#[test]
fn all_exits_of_a_function_are_decoded() {
    for code in [
        &[0xcf][..],               // iret
        &[0x48, 0x0f, 0x07],       // sysretq
        &[0x0f, 0x35],             // sysexit
        &[0xf2, 0x0f, 0x01, 0xca], // erets
        &[0xca, 0x08, 0x00],       // lret $8
    ] {
        assert_eq!(one(code, Word::W64), Effect::Return, "{code:x?}");
    }
    // ljmp $0x10,$0xc1000130
    let far = [0xea, 0x30, 0x01, 0x00, 0xc1, 0x10, 0x00];
    assert_eq!(one(&far, Word::W32), Effect::Return);
    // Linux marks static call trampolines with ud1 %esp,%ecx, and UBSAN traps with others.
    for code in [
        &[0x0f, 0xb9, 0xcc][..],
        &[0x67, 0x0f, 0xb9, 0x40, 0x0b],
        &[0xcc],
    ] {
        assert_eq!(one(code, Word::W64), Effect::Trap, "{code:x?}");
    }
    // xbegin .+10, in Xen's clear_bhb_tsx.
    let begin = [0xc7, 0xf8, 0x04, 0x00, 0x00, 0x00];
    assert_eq!(one(&begin, Word::W64), Effect::Branch(VirtAddr(PC.0 + 10)));
}

#[test]
fn truncated_code_is_not_decoded() {
    let long = [0x48, 0x81, 0xbc, 0xc1, 1, 2, 3, 4, 5, 6, 7, 8];
    for length in 0..long.len() {
        assert_eq!(decode(&long[..length], PC, Word::W64), None);
    }
    assert!(decode(&long, PC, Word::W64).is_some());
    assert_eq!(decode(&[0x66; 64], PC, Word::W64), None);
    assert_eq!(decode(&[], PC, Word::W32), None);
}
