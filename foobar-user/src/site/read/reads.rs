//! How a `[service.name]` with `select = "replica"` takes care of replicas that are behind.

use crate::plan::{Reads, Select};
use crate::sets::ttl;
use crate::site::section::Section;

/// Longest lag in seconds that makes sense as a limit.
const LAG_S_MAX: u64 = 86_400;
/// Most bytes of log that make sense as a limit: a tebibyte.
const LAG_BYTES_MAX: u64 = 1 << 40;

pub(super) fn read(section: &mut Section<'_>, select: Select) -> Select {
    let Select::Replica(_) = select else {
        for key in ["max_lag", "max_lag_bytes", "fallback_to_primary"] {
            section.refuse(key, "this is about replicas; set `select = \"replica\"`, or leave it out");
        }
        return select;
    };
    let max_lag_s = section.parse("max_lag", "a time such as \"10s\"", lag).map(|lag| lag.value);
    let max_lag_bytes = section.integer("max_lag_bytes", 1..=LAG_BYTES_MAX).map(|bytes| bytes.value);
    let fallback_to_primary = section.flag("fallback_to_primary").is_none_or(|flag| flag.value);
    Select::Replica(Reads { max_lag_s, max_lag_bytes, fallback_to_primary })
}

fn lag(text: &str) -> Result<u32, String> {
    let seconds = ttl::parse(text)?.as_secs();
    u32::try_from(seconds)
        .ok()
        .filter(|_| seconds <= LAG_S_MAX)
        .ok_or_else(|| format!("`{text}` is longer than 1d, which is the limit"))
}
