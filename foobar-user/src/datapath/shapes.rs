//! The shapes of pinned maps: what an earlier agent has left must be what this binary expects, or it is not touched.
//!
//! The number of the ABI says so in the first place; this is for a binary whose layout has changed and whose number has not.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::{MapInfo, MapType};
use aya_obj::Object;
use aya_obj::generated::bpf_map_type;

/// Refuses pins in `folder` that are not as the object's maps of these names; those of `sized` may hold more or less.
///
/// # Errors
/// The map that differs, and what to do.
pub(super) fn check(object: &[u8], maps: &[&str], sized: &[&str], folder: &Path) -> Result<()> {
    let pins = || maps.iter().map(|name| (*name, folder.join(name.to_lowercase()))).filter(|(_, pin)| pin.exists());
    if pins().next().is_none() {
        return Ok(());
    }
    let object = Object::parse(object).context("cannot read the packet path's object")?;
    for (name, pin) in pins() {
        let map = object.maps.get(name).with_context(|| format!("no map `{name}` in the object"))?;
        let found = MapInfo::from_pin(&pin).with_context(|| format!("{} is no map", pin.display()))?;
        let kind = bpf_map_type::try_from(map.map_type()).ok().and_then(|kind| MapType::try_from(kind).ok());
        let entries = if sized.contains(&name) { found.max_entries() } else { map.max_entries() };
        let expected = Shape { kind, key: map.key_size(), value: map.value_size(), entries };
        let found = Shape {
            kind: found.map_type().ok(),
            key: found.key_size(),
            value: found.value_size(),
            entries: found.max_entries(),
        };
        ensure!(
            found == expected,
            "{} has {found}, and this binary needs {expected}: it was left by another build. Nothing was changed, and what is in \
             the kernel goes on. Start the build that left it, or remove it all with `foobar detach` and start this one: \
             established flows are lost by that, and the server is open until then",
            pin.display()
        );
    }
    Ok(())
}

/// What must be the same.
#[derive(Debug, PartialEq)]
struct Shape {
    kind: Option<MapType>,
    key: u32,
    value: u32,
    entries: u32,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, key, value, entries } = self;
        let kind = kind.map_or_else(|| "?".to_owned(), |kind| format!("{kind:?}"));
        write!(f, "{entries} entries with keys of {key} and values of {value} bytes ({kind})")
    }
}
