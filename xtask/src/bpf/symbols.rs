//! Undefined symbols of an ELF object: read from the symbol table by offset (ELF64, the host's byte order).

use anyhow::{Result, ensure};

const SECTION_HEADER_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const SECTION_TYPE_SYMBOLS: u32 = 2;
const SECTION_UNDEFINED: u16 = 0;

/// Names of the symbols that the object uses and does not define.
///
/// # Errors
/// Not an ELF64 object, or its tables point outside of it.
pub(crate) fn undefined_symbols(object: &[u8]) -> Result<Vec<String>> {
    ensure!(object.starts_with(b"\x7fELF\x02"), "no ELF64 file");
    let sections = usize::try_from(u64_at(object, 0x28)?)?;
    let count = usize::from(u16_at(object, 0x3c)?);
    let header = |index: usize| sections + index * SECTION_HEADER_BYTES;
    let mut missing = Vec::new();
    for index in 0..count {
        let section = header(index);
        if u32_at(object, section + 4)? != SECTION_TYPE_SYMBOLS {
            continue;
        }
        let symbols = usize::try_from(u64_at(object, section + 0x18)?)?;
        let size = usize::try_from(u64_at(object, section + 0x20)?)?;
        let names = header(usize::try_from(u32_at(object, section + 0x28)?)?);
        let names = usize::try_from(u64_at(object, names + 0x18)?)?;
        // The first symbol is the empty one by definition.
        for symbol in (symbols..symbols + size).step_by(SYMBOL_BYTES).skip(1) {
            if u16_at(object, symbol + 6)? == SECTION_UNDEFINED {
                missing.push(name_at(object, names + usize::try_from(u32_at(object, symbol)?)?)?);
            }
        }
    }
    Ok(missing)
}

fn bytes_at<const N: usize>(object: &[u8], offset: usize) -> Result<[u8; N]> {
    let bytes = object.get(offset..).and_then(|rest| rest.first_chunk::<N>());
    bytes.copied().ok_or_else(|| anyhow::anyhow!("its tables point outside of the file (offset {offset})"))
}

fn u16_at(object: &[u8], offset: usize) -> Result<u16> {
    bytes_at(object, offset).map(u16::from_ne_bytes)
}

fn u32_at(object: &[u8], offset: usize) -> Result<u32> {
    bytes_at(object, offset).map(u32::from_ne_bytes)
}

fn u64_at(object: &[u8], offset: usize) -> Result<u64> {
    bytes_at(object, offset).map(u64::from_ne_bytes)
}

fn name_at(object: &[u8], offset: usize) -> Result<String> {
    let rest = object.get(offset..).unwrap_or_default();
    let length = rest.iter().position(|byte| *byte == 0);
    ensure!(length.is_some(), "a name has no end (offset {offset})");
    Ok(String::from_utf8_lossy(&rest[..length.unwrap_or_default()]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object with one symbol table: `memcmp` undefined, `foobar` defined in section 1.
    fn object() -> Vec<u8> {
        let names = b"\0memcmp\0foobar\0\0";
        let (symbols_at, names_at, sections_at) = (0x40_usize, 0x40 + 3 * SYMBOL_BYTES, 0x40 + 3 * SYMBOL_BYTES + 16);
        let mut object = vec![0_u8; sections_at + 3 * SECTION_HEADER_BYTES];
        let mut put = |offset: usize, bytes: &[u8]| object[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02");
        put(0x28, &(sections_at as u64).to_ne_bytes());
        put(0x3c, &3_u16.to_ne_bytes());
        put(symbols_at + SYMBOL_BYTES, &1_u32.to_ne_bytes());
        put(symbols_at + 2 * SYMBOL_BYTES, &8_u32.to_ne_bytes());
        put(symbols_at + 2 * SYMBOL_BYTES + 6, &1_u16.to_ne_bytes());
        put(names_at, names);
        let symbols = sections_at + SECTION_HEADER_BYTES;
        put(symbols + 4, &SECTION_TYPE_SYMBOLS.to_ne_bytes());
        put(symbols + 0x18, &(symbols_at as u64).to_ne_bytes());
        put(symbols + 0x20, &(3 * SYMBOL_BYTES as u64).to_ne_bytes());
        put(symbols + 0x28, &2_u32.to_ne_bytes());
        put(symbols + SECTION_HEADER_BYTES + 0x18, &(names_at as u64).to_ne_bytes());
        object
    }

    #[test]
    fn the_undefined_symbol_is_named_and_the_defined_one_is_not() {
        assert_eq!(undefined_symbols(&object()).expect("it is an object"), ["memcmp"]);
    }

    #[test]
    fn every_truncation_is_an_error_and_never_a_panic() {
        let object = object();
        for length in 0..object.len() - SECTION_HEADER_BYTES {
            assert!(undefined_symbols(&object[..length]).is_err(), "{length} bytes");
        }
    }
}
