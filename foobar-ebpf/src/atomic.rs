//! The one atomic operation that the target has no intrinsic for.

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

/// Replaces the word at `pointer` when it is `old`; whether it was.
///
/// # Safety
/// `pointer` is an aligned word of a map value, which the verifier checks.
#[inline(always)]
pub(crate) unsafe fn exchange(pointer: *mut u64, old: u64, new: u64) -> bool {
    let mut found = old;
    // SAFETY: `BPF_ATOMIC | BPF_CMPXCHG` on a map value; the instruction compares with and answers in `r0`.
    unsafe {
        asm!("r0 = cmpxchg_64({pointer} + 0, r0, {new})", pointer = in(reg) pointer, new = in(reg) new, inout("r0") found);
    }
    found == old
}
