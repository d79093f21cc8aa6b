//! `ready` of a `[process]`: what tells that it can be used.

use crate::site::model::{SiteReady, SiteReadyCheck};
use crate::site::section::{Section, nearest};
use crate::site::text;

/// Kinds of readiness.
const KINDS: [&str; 4] = ["tcp", "http", "script", "none"];
/// Time in which a process must be ready, where the file names none.
const TIMEOUT_MS: u64 = 60_000;
/// What that time may be.
const TIMEOUT_MS_RANGE: std::ops::RangeInclusive<u64> = 100..=3_600_000;

/// The process's `ready`; `None` when there is nothing to wait for.
pub(super) fn read(section: &mut Section<'_>) -> Option<SiteReady> {
    let mut table = section.table("ready", "{ kind = \"tcp\", port = 8000 }")?;
    let kind = table.parse("kind", "a string", |word| {
        if KINDS.contains(&word) {
            return Ok(word.to_owned());
        }
        let hint = nearest(word, &KINDS)
            .map_or_else(|| format!("write one of {}", KINDS.join(", ")), |near| format!("did you mean `{near}`?"));
        Err(format!("`{word}` is no way to tell that a process is ready; {hint}"))
    });
    let kind = table.need("kind", kind, "kind = \"tcp\"");
    let word = kind.as_ref().map(|kind| kind.value.as_str());
    only(&mut table, word, "port", &["tcp", "http"]);
    only(&mut table, word, "address", &["tcp", "http"]);
    only(&mut table, word, "path", &["http"]);
    only(&mut table, word, "command", &["script"]);
    only(&mut table, word, "timeout_ms", &["tcp", "http", "script"]);
    let check = check(&mut table, word);
    let timeout = if word == Some("none") { None } else { table.integer("timeout_ms", TIMEOUT_MS_RANGE) };
    table.finish();
    Some(SiteReady { check: check?, timeout_ms: timeout.map_or(TIMEOUT_MS, |time| time.value) })
}

/// Refuses a key of other kinds; of a kind in doubt every key is known.
fn only(table: &mut Section<'_>, kind: Option<&str>, key: &'static str, kinds: &[&str]) {
    match kind {
        Some(kind) if kinds.contains(&kind) => {}
        Some(kind) => {
            let why = format!(
                "this is for `kind = \"{}\"`, but the kind is `{kind}`; leave it out",
                kinds.join("\"` or `\"")
            );
            table.refuse(key, &why);
        }
        None => table.know(key),
    }
}

fn check(table: &mut Section<'_>, kind: Option<&str>) -> Option<SiteReadyCheck> {
    match kind? {
        "script" => {
            let command = table.list("command", "a program and its arguments", text::template);
            let command = table.need("command", command, "command = [\"/usr/local/bin/is-ready\"]")?;
            if command.first().is_none_or(|program| !program.starts_with('/')) {
                table.faults.error(command.span, "a check's program is named by its whole path");
            }
            Some(SiteReadyCheck::Script(command.value.into_iter().map(|word| word.value).collect()))
        }
        "none" => None,
        kind => {
            let port = table.port("port", 1);
            let port = table.need("port", port, "port = 8000");
            let address = table.parse("address", "an IP address", |word| {
                word.parse().map_err(|_| format!("`{word}` is no IP address, such as `127.0.0.1`"))
            });
            let path = (kind == "http").then(|| table.parse("path", "a path", text::url_path)).flatten();
            let (port, address) = (port?.value, address.map(|address| address.value));
            Some(if kind == "http" {
                SiteReadyCheck::Http { port, address, path: path.map_or_else(|| "/".to_owned(), |path| path.value) }
            } else {
                SiteReadyCheck::Tcp { port, address }
            })
        }
    }
}
