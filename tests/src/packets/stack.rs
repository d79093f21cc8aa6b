//! How much stack the object's functions take, as its instructions say: the kernel tells it only when it refuses.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SymbolKind};

/// Linux 6.1 counts each frame in steps of so many bytes, and at least one; later ones in smaller steps.
const STEP: u32 = 32;
/// Bytes of an instruction.
const BYTES: usize = 8;
/// The register that points to the end of the frame.
const FRAME: u8 = 10;

/// Where a function begins: its section and its offset there.
type Place = (SectionIndex, u64);

/// A function.
#[derive(Debug, Default)]
struct Function {
    /// Bytes of its own frame.
    frame: u32,
    /// The functions that it calls, or has a helper call.
    calls: Vec<Place>,
}

/// The functions of an object.
#[derive(Debug)]
pub struct Stacks {
    functions: HashMap<Place, Function>,
    names: HashMap<String, Place>,
}

impl Stacks {
    /// Of an object in the ELF format.
    ///
    /// # Errors
    /// It is not one, or calls what it does not contain.
    pub fn of(bytes: &[u8]) -> Result<Self> {
        let object = object::File::parse(bytes).context("the object is no ELF file")?;
        let (mut functions, mut names) = (HashMap::new(), HashMap::new());
        for symbol in object.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
            let section = symbol.section_index().context("a function without a section")?;
            let place = (section, symbol.address());
            names.insert(symbol.name()?.to_owned(), place);
            functions.insert(place, read(&object, place, symbol.size())?);
        }
        Ok(Self { functions, names })
    }

    /// The deepest chain of calls from a program on, by stack.
    ///
    /// # Errors
    /// There is no such program.
    pub fn deepest(&self, program: &str) -> Result<Chain> {
        let place = self.names.get(program).with_context(|| format!("no function `{program}` in the object"))?;
        self.from(*place, 0)
    }

    fn from(&self, place: Place, depth: usize) -> Result<Chain> {
        // The kernel's own limit: no program that it loads goes deeper, or calls itself.
        ensure!(depth <= 8, "a chain of more than eight calls");
        let function = self.functions.get(&place).with_context(|| format!("a call to no function: {place:?}"))?;
        let mut deepest = Chain::default();
        for call in &function.calls {
            let below = self.from(*call, depth + 1)?;
            if below.bytes > deepest.bytes {
                deepest = below;
            }
        }
        let frame = function.frame.max(1).next_multiple_of(STEP);
        let name = self.names.iter().find(|(_, named)| **named == place).map_or("a function", |(name, _)| name);
        deepest.bytes += frame;
        deepest.calls.insert(0, format!("{name} ({frame})"));
        Ok(deepest)
    }
}

/// A chain of calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Bytes of stack that it takes.
    pub bytes: u32,
    /// Its functions from the program on, with their own part.
    pub calls: Vec<String>,
}

/// Reads the instructions of a function.
fn read(object: &object::File<'_>, (index, first): Place, size: u64) -> Result<Function> {
    let section = object.section_by_index(index)?;
    let code = section.data()?;
    let mut relocations: HashMap<u64, Place> = HashMap::new();
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
        let symbol = object.symbol_by_index(symbol)?;
        if let Some(section) = symbol.section_index()
            && object.section_by_index(section)?.kind() == object::SectionKind::Text
        {
            relocations.insert(offset, (section, symbol.address()));
        }
    }
    let mut function = Function::default();
    // Registers that point to the end of the frame.
    let mut points = 1_u16 << FRAME;
    for offset in (first..first + size).step_by(BYTES) {
        let instruction: [u8; BYTES] = code[offset as usize..][..BYTES].try_into()?;
        let Instruction { code, destination, source, jump, immediate } = Instruction::from(instruction);
        if let Some((section, address)) = relocations.get(&offset) {
            // Of a call the constant counts instructions from the next one on, of a load of an address bytes.
            let inner = match code {
                CALL => (i64::from(immediate) + 1) * BYTES as i64,
                _ => i64::from(immediate),
            };
            function.calls.push((*section, address.wrapping_add_signed(inner)));
        } else if code == CALL && source == CALL_OF_PROGRAM {
            let target = offset as i64 + (i64::from(immediate) + 1) * BYTES as i64;
            function.calls.push((index, target as u64));
        }
        let is = |register: u8| points & 1 << register != 0;
        let below = match (code, code & CLASS) {
            (_, LOAD) if is(source) => i32::from(jump),
            (_, STORE | STORE_REGISTER) if is(destination) => i32::from(jump),
            (ADD, _) if is(destination) => immediate,
            _ => 0,
        };
        function.frame = function.frame.max(below.min(0).unsigned_abs());
        if code == MOVE && source == FRAME {
            points |= 1 << destination;
        } else if destination != FRAME && !matches!(code & CLASS, STORE | STORE_REGISTER | JUMP | JUMP_32) {
            points &= !(1 << destination);
        }
    }
    Ok(function)
}

/// `struct bpf_insn`.
struct Instruction {
    code: u8,
    destination: u8,
    source: u8,
    jump: i16,
    immediate: i32,
}

impl From<[u8; BYTES]> for Instruction {
    fn from([code, registers, a, b, rest @ ..]: [u8; BYTES]) -> Self {
        let (jump, immediate) = (i16::from_le_bytes([a, b]), i32::from_le_bytes(rest));
        Self { code, destination: registers & 15, source: registers >> 4, jump, immediate }
    }
}

// Codes of `linux/bpf.h`.
const CLASS: u8 = 7;
const LOAD: u8 = 1;
const STORE: u8 = 2;
const STORE_REGISTER: u8 = 3;
const JUMP: u8 = 5;
const JUMP_32: u8 = 6;
const ADD: u8 = 0x07;
const CALL: u8 = 0x85;
const MOVE: u8 = 0xbf;
/// Source of a call that is one of the object's own functions.
const CALL_OF_PROGRAM: u8 = 1;
