//! Offsets of fields in the running kernel's structures, from its own description of its types (BTF).

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

/// Where the kernel describes its types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// Structures and unions of a kernel.
#[derive(Debug)]
pub(super) struct KernelTypes {
    bytes: Vec<u8>,
    strings: usize,
    /// Offset of each type, by its number less one.
    types: Vec<usize>,
    by_name: HashMap<Vec<u8>, usize>,
}

impl KernelTypes {
    /// Those of the running kernel.
    ///
    /// # Errors
    /// It was built without them.
    pub(super) fn running() -> Result<Self> {
        Self::parse(fs::read(VMLINUX).with_context(|| format!("cannot read {VMLINUX}"))?)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self> {
        let mut types = Self { bytes, strings: 0, types: Vec::new(), by_name: HashMap::new() };
        ensure!(types.word(0)? & 0xffff == 0xeb9f, "not a description of types");
        let header = types.word(4)? as usize;
        let (begin, length) = (header + types.word(8)? as usize, types.word(12)? as usize);
        types.strings = header + types.word(16)? as usize;
        let mut at = begin;
        while at < begin + length {
            types.types.push(at);
            let info = types.word(at + 4)?;
            if matches!(info >> 24 & 0x1f, KIND_STRUCT | KIND_UNION) {
                let name = types.name(types.word(at)?).to_owned();
                types.by_name.entry(name).or_insert(at);
            }
            at += 12 + tail(info)?;
        }
        Ok(types)
    }

    /// Offset in bits of a field, found also in members without a name; `path` is like `a.b.c`.
    ///
    /// # Errors
    /// There is no such structure or field.
    pub(super) fn bits(&self, structure: &str, path: &str) -> Result<u32> {
        let mut at = *self.by_name.get(structure.as_bytes()).with_context(|| format!("no structure {structure}"))?;
        let mut bits = 0;
        for field in path.split('.') {
            let (offset, of) = self.member(at, field)?.with_context(|| format!("no {path} in {structure}"))?;
            bits += offset;
            at = self.types.get((of as usize).wrapping_sub(1)).copied().unwrap_or_default();
        }
        Ok(bits)
    }

    /// Offset in bits and type of a member.
    fn member(&self, structure: usize, name: &str) -> Result<Option<(u32, u32)>> {
        let info = self.word(structure + 4)?;
        if !matches!(info >> 24 & 0x1f, KIND_STRUCT | KIND_UNION) {
            return Ok(None);
        }
        let with_sizes = info >> 31 == 1;
        for member in 0..(info & 0xffff) as usize {
            let at = structure + 12 + 12 * member;
            let (of, offset) = (self.word(at + 4)?, self.word(at + 8)?);
            let offset = if with_sizes { offset & 0xff_ffff } else { offset };
            let found = self.name(self.word(at)?);
            if found == name.as_bytes() {
                return Ok(Some((offset, of)));
            }
            if found.is_empty()
                && let Some(inner) = self.types.get((of as usize).wrapping_sub(1))
                && let Some((more, of)) = self.member(*inner, name)?
            {
                return Ok(Some((offset + more, of)));
            }
        }
        Ok(None)
    }

    fn word(&self, at: usize) -> Result<u32> {
        let bytes = self.bytes.get(at..at + 4).context("the description of types is cut short")?;
        Ok(u32::from_ne_bytes(bytes.try_into()?))
    }

    fn name(&self, offset: u32) -> &[u8] {
        let rest = self.bytes.get(self.strings + offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// Length of what follows the twelve bytes of every type.
fn tail(info: u32) -> Result<usize> {
    let members = (info & 0xffff) as usize;
    Ok(match info >> 24 & 0x1f {
        // Integer, variable's linkage, tag of a declaration.
        1 | 14 | 17 => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * members,
        6 | 13 => 8 * members,
        2 | 7..=12 | 16 | 18 => 0,
        kind => bail!("a kind of type that this version does not know: {kind}"),
    })
}
