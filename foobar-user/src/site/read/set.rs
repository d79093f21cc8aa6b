//! `[set.name]`: prefixes in the site file, in a file of their own, or both.

use super::Reader;
use crate::site::at::At;
use crate::site::model::Set;
use crate::site::section::Section;
use crate::site::text;

pub(super) fn read(reader: &Reader<'_>, name: At<String>, mut section: Section<'_>) -> Option<Set> {
    let checked = text::name(&name).map_err(|why| section.faults.error(name.span, format!("set name {why}")));
    let prefixes = section.list("prefixes", "a list of prefixes", text::prefix);
    let wrong = prefixes.is_none() && section.has("prefixes");
    let file = reader.path(&mut section, "file");
    let wrong = wrong || file.is_none() && section.has("file");
    section.finish();
    checked.ok()?;
    (!wrong).then(|| Set { name, prefixes: prefixes.map(|list| list.value).unwrap_or_default(), file })
}
