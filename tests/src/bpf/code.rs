//! Instructions of small programs of our own, and the jumps between them.

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Instruction {
    /// Operation.
    pub(crate) code: u8,
    /// Destination in the low half, source in the high one.
    pub(crate) registers: u8,
    /// Offset of a memory access or jump.
    pub(crate) offset: i16,
    /// Constant.
    pub(crate) immediate: i32,
}

/// An instruction.
pub(crate) const fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

/// The two instructions that load a map's address into a register.
pub(crate) const fn map(register: u8, map: i32) -> [Instruction; 2] {
    [op(LOAD_64, register, PSEUDO_MAP, 0, map), op(0, 0, 0, 0, 0)]
}

/// A packet program: checks that the frame has `length` bytes, else passes it. Register 6 is then the context, 2 the frame;
/// `body` must not jump out of itself, and ends with an exit or a tail call.
pub(crate) fn packet_program(length: i16, body: &[Instruction]) -> Vec<Instruction> {
    let over = i16::try_from(body.len()).unwrap_or(i16::MAX);
    let mut code = vec![
        op(MOV_REGISTER, 6, 1, 0, 0),
        op(LOAD_32, 2, 1, 0, 0),
        op(LOAD_32, 3, 1, 4, 0),
        op(MOV_REGISTER, 4, 2, 0, 0),
        op(ADD, 4, 0, 0, i32::from(length)),
        op(JUMP_GREATER, 4, 3, over, 0),
    ];
    code.extend_from_slice(body);
    code.extend(leave(XDP_PASS));
    code
}

/// Returns `action`.
pub(crate) const fn leave(action: i32) -> [Instruction; 2] {
    [op(MOV, 0, 0, 0, action), op(EXIT, 0, 0, 0, 0)]
}

/// Calls the program at index 0 of `array` with the context of register 6; falls through where there is none.
pub(crate) fn tail_call(array: i32) -> Vec<Instruction> {
    let [low, high] = map(2, array);
    vec![op(MOV_REGISTER, 1, 6, 0, 0), low, high, op(MOV, 3, 0, 0, 0), op(CALL, 0, 0, 0, TAIL_CALL)]
}

/// `XDP_DROP`.
pub(crate) const XDP_DROP: i32 = 1;
/// `XDP_PASS`.
pub(crate) const XDP_PASS: i32 = 2;

// Codes of `linux/bpf.h`.
pub(crate) const ADD: u8 = 0x07;
pub(crate) const ADD_REGISTER: u8 = 0x0f;
pub(crate) const LOAD_64: u8 = 0x18;
pub(crate) const MULTIPLY_32: u8 = 0x24;
pub(crate) const JUMP_GREATER: u8 = 0x2d;
pub(crate) const OR_REGISTER: u8 = 0x4f;
pub(crate) const JUMP_EQUAL: u8 = 0x15;
pub(crate) const JUMP_NOT_EQUAL: u8 = 0x55;
pub(crate) const AND: u8 = 0x57;
pub(crate) const LOAD_32: u8 = 0x61;
pub(crate) const SET_32: u8 = 0x62;
pub(crate) const STORE_32: u8 = 0x63;
pub(crate) const SHIFT_LEFT: u8 = 0x67;
pub(crate) const SET_16: u8 = 0x6a;
pub(crate) const STORE_16: u8 = 0x6b;
pub(crate) const LOAD_8: u8 = 0x71;
pub(crate) const SET_8: u8 = 0x72;
pub(crate) const SHIFT_RIGHT: u8 = 0x77;
pub(crate) const CALL: u8 = 0x85;
pub(crate) const EXIT: u8 = 0x95;
pub(crate) const MODULO: u8 = 0x97;
pub(crate) const EXCLUSIVE_OR: u8 = 0xa7;
pub(crate) const MOV: u8 = 0xb7;
pub(crate) const MOV_REGISTER: u8 = 0xbf;
pub(crate) const TO_BIG_ENDIAN: u8 = 0xdc;
const PSEUDO_MAP: u8 = 1;
const TAIL_CALL: i32 = 12;
/// Helper numbers.
pub(crate) const MAP_LOOKUP: i32 = 1;
pub(crate) const REDIRECT: i32 = 23;
