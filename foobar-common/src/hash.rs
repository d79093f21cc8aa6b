//! Hashing of a few words, for tables whose places nobody outside shall be able to choose: with a secret in front.

/// Every bit of the result depends on every bit of the number (`splitmix64`).
#[inline(always)]
#[must_use]
pub const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
