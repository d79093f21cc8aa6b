//! `files` of a `[process]`: what is written before it starts.

use std::path::PathBuf;

use super::Reader;
use crate::site::at::At;
use crate::site::model::{SiteContent, SiteFile};
use crate::site::section::Section;
use crate::site::text;

/// Permissions where the file names none.
const MODE: u32 = 0o640;

/// The process's `files`.
pub(super) fn read(reader: &Reader<'_>, section: &mut Section<'_>) -> Vec<SiteFile> {
    let mut list: Vec<SiteFile> = Vec::new();
    for table in section.tables("files") {
        let faults = table.faults;
        let Some(file) = one(reader, table) else { continue };
        if list.iter().any(|other| other.path == file.path) {
            faults.error(file.path.span, format!("{} is written twice; leave one out", file.path.display()));
        }
        list.push(file);
    }
    list
}

fn one(reader: &Reader<'_>, mut table: Section<'_>) -> Option<SiteFile> {
    let path = table.parse("path", "a path", |word| {
        let path = PathBuf::from(word);
        let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        if word.contains('\0') || !path.is_absolute() || !plain || path.file_name().is_none() {
            return Err(format!("`{word}` is no whole path of a file, such as `/etc/app/app.conf`"));
        }
        Ok(path)
    });
    let path = table.need("path", path, "path = \"/etc/app/app.conf\"");
    let template = reader.path(&mut table, "template");
    let content = table.parse("content", "a text", text::template);
    let mode = table.parse("mode", "permissions such as \"0640\"", mode);
    match (table.has("template"), table.has("content")) {
        (true, true) => {
            let message = format!("{} has a `template` and `content`; leave one out", table.title);
            table.faults.error(table.place("content"), message);
        }
        (false, false) => {
            let _ = table.need::<()>("template", None, "template = \"app.conf.template\"");
        }
        _ => {}
    }
    table.finish();
    let content = template.map(SiteContent::Template).or(content.map(|text| SiteContent::Text(text.value)));
    Some(SiteFile { path: path?, content: content?, mode: mode.map_or(MODE, |mode| mode.value) })
}

/// Permissions in octal.
fn mode(text: &str) -> Result<u32, String> {
    let octal = text.len() >= 3 && text.len() <= 4 && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let wrong = || format!("`{text}` is no mode of a file; write three octal digits, such as `0640`");
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| octal).ok_or_else(wrong)?;
    if mode > 0o777 {
        return Err(format!("`{text}` sets special bits; a file written here has none: write `0{:03o}`", mode & 0o777));
    }
    if mode & 0o400 == 0 {
        return Err(format!("`{text}` keeps its owner from reading it; add 0400"));
    }
    Ok(mode)
}

/// Where a template stands in the site file, for the look at what is in it.
pub(in crate::site) fn templates(files: &[SiteFile]) -> impl Iterator<Item = &At<PathBuf>> {
    files.iter().filter_map(|file| match &file.content {
        SiteContent::Template(path) => Some(path),
        SiteContent::Text(_) => None,
    })
}
