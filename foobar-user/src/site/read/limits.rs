//! `limits` of a `[process]`: what it may use with all its children.

use crate::plan::Limits;
use crate::site::at::At;
use crate::site::section::Section;

/// How limits are written.
const EXAMPLE: &str = "{ memory = \"512MiB\", cpu = 1.5, cpu_weight = 50, processes = 200 }";
/// CPUs in thousandths: cgroups take no less than a hundredth of one.
const CPU_MILLI: std::ops::RangeInclusive<u64> = 10..=1_024_000;
/// Memory that a program needs to start at all.
const MEMORY_MIN: u64 = 4 << 20;
/// More than machines have.
const MEMORY_MAX: u64 = 64 << 40;
/// What the kernel numbers at the most.
const PROCESSES_MAX: u64 = 4_194_304;
/// Units of memory, the longer name first, and their bytes.
const UNITS: [(&str, u64); 6] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)];

/// The process's `limits`; none when they are absent or were refused.
pub(super) fn read(section: &mut Section<'_>) -> At<Limits> {
    let span = section.place("limits");
    let Some(mut table) = section.table("limits", EXAMPLE) else { return At { value: Limits::default(), span } };
    let narrow = |number: At<u64>| u32::try_from(number.value).ok();
    let cpu_weight = table.integer("cpu_weight", 1..=10_000).and_then(narrow);
    let cpu_milli = table.thousandths("cpu", CPU_MILLI).and_then(narrow);
    let memory = table.parse("memory", "a size such as \"512MiB\"", memory);
    let processes = table.integer("processes", 1..=PROCESSES_MAX).and_then(narrow);
    let limits = Limits { cpu_weight, cpu_milli, memory_bytes: memory.map(|memory| memory.value), processes };
    let (title, faults, before) = (table.title.clone(), table.faults, table.faults.len());
    let given = ["cpu_weight", "cpu", "memory", "processes"].iter().any(|key| table.has(key));
    table.finish();
    if !given && faults.len() == before {
        faults.error(span, format!("{title} limits nothing; write `limits = {EXAMPLE}`, or leave it out"));
    }
    At { value: limits, span }
}

/// A size in bytes: a whole number and a unit.
fn memory(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write a whole number of KiB, MiB or GiB, such as `512MiB`");
    let (number, unit) =
        UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes))).ok_or_else(wrong)?;
    let number = number.trim_end();
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match bytes {
        Some(bytes) if bytes < MEMORY_MIN => {
            Err(format!("`{text}` is too little to start any program; 4MiB is the least"))
        }
        Some(bytes) if bytes <= MEMORY_MAX => Ok(bytes),
        _ => Err(format!("`{text}` is more than any machine has; leave it out for no limit")),
    }
}

#[cfg(test)]
mod tests {
    use super::memory;

    #[test]
    fn sizes_have_whole_numbers_and_units() {
        assert_eq!(memory("512MiB"), Ok(512 << 20));
        assert_eq!(memory("2 G"), Ok(2 << 30));
        assert_eq!(memory("4096K"), Ok(4 << 20));
        for bad in ["", "512", "MiB", "-1MiB", "1.5GiB", "512mb", "0MiB", "4095K", "99999999999999999999G", "65T"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }
}
