//! The atomic operations that the target has no intrinsics for.

use core::arch::asm;

/// Adds `value` to the word at `pointer`, and returns what was there before.
///
/// # Safety
/// `pointer` is an aligned word of a map value, which the verifier checks.
#[inline(always)]
pub(crate) unsafe fn fetch_add(pointer: *mut u64, value: u64) -> u64 {
    let mut word = value;
    // SAFETY: `BPF_ATOMIC | BPF_ADD | BPF_FETCH` on a map value.
    unsafe {
        asm!("{word} = atomic_fetch_add((u64 *)({pointer} + 0), {word})", word = inout(reg) word, pointer = in(reg) pointer);
    }
    word
}

/// Writes `value` to the word at `pointer`, and returns what was there before.
///
/// # Safety
/// `pointer` is an aligned word of a map value, which the verifier checks.
#[inline(always)]
pub(crate) unsafe fn exchange(pointer: *mut u64, value: u64) -> u64 {
    let mut word = value;
    // SAFETY: `BPF_ATOMIC | BPF_XCHG` on a map value.
    unsafe {
        asm!("{word} = xchg_64({pointer} + 0, {word})", word = inout(reg) word, pointer = in(reg) pointer);
    }
    word
}

/// Writes `new` to the word at `pointer` if `old` is there, and returns what was there before.
///
/// # Safety
/// `pointer` is an aligned word of a map value, which the verifier checks.
#[inline(always)]
pub(crate) unsafe fn compare_exchange(pointer: *mut u64, old: u64, new: u64) -> u64 {
    let mut word = old;
    // SAFETY: `BPF_ATOMIC | BPF_CMPXCHG` on a map value; the instruction compares with r0.
    unsafe {
        asm!("r0 = cmpxchg_64({pointer} + 0, r0, {new})", inout("r0") word, pointer = in(reg) pointer, new = in(reg) new);
    }
    word
}
