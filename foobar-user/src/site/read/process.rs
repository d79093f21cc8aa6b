//! `[process.name]`: what runs where; each kind has keys of its own.

use std::collections::BTreeMap;

use super::{Reader, files, limits, ready};
use crate::site::at::At;
use crate::site::model::{Process, SiteProcess};
use crate::site::section::{Section, nearest};
use crate::site::text;

/// Kinds of processes.
const KINDS: [&str; 4] = ["command", "nginx", "postgres", "prometheus"];
/// Default time between the stop signal and SIGKILL.
const STOP_TIMEOUT_MS: u64 = 5_000;
/// What that time may be.
const STOP_TIMEOUT_MS_RANGE: std::ops::RangeInclusive<u64> = 100..=600_000;
/// Port of Prometheus where the file names none.
const PROMETHEUS_PORT: u16 = 9090;
/// Keys that belong to one kind.
const KEYS: [(&str, &str); 10] = [
    ("command", "command"),
    ("environment", "command"),
    ("folder", "command"),
    ("files", "command"),
    ("reload_signal", "command"),
    ("root", "nginx"),
    ("dynamic", "nginx"),
    ("upstream", "nginx"),
    ("port", "prometheus"),
    ("rules", "prometheus"),
];

pub(super) fn read(reader: &Reader<'_>, name: At<String>, mut section: Section<'_>) -> Option<Process> {
    let checked = text::name(&name).map_err(|why| section.faults.error(name.span, format!("process name {why}")));
    let on = section.list("on", "a list of roles or server names", text::place);
    let on = section.need("on", on, "on = [\"app\"]");
    if let Some(on) = &on
        && on.is_empty()
    {
        section.faults.error(on.span, format!("`on` in {} names no server; name a role or a server", section.title));
    }
    let given = section.parse("kind", "a string", |word| {
        if KINDS.contains(&word) {
            return Ok(word.to_owned());
        }
        let hint = nearest(word, &KINDS)
            .map_or_else(|| format!("kinds are {}", KINDS.join(", ")), |near| format!("did you mean `{near}`?"));
        Err(format!("`{word}` is no kind of process; {hint}"))
    });
    let unknown = given.is_none() && section.has("kind");
    let word = given.map_or_else(|| "command".to_owned(), |kind| kind.value);
    for (key, kind) in KEYS {
        if unknown {
            section.know(key);
        } else if kind != word {
            let why =
                format!("this is for `kind = \"{kind}\"`, but the kind is `{word}`; leave it out or set the kind");
            section.refuse(key, &why);
        }
    }
    let kind = if unknown { None } else { kind(reader, &mut section, &word) };
    let user = section.parse("user", "an account", text::account);
    let stop_signal = section.parse("stop_signal", "a signal's name", text::signal);
    let stop_timeout = section.integer("stop_timeout_ms", STOP_TIMEOUT_MS_RANGE);
    let after = section.list("after", "a list of processes", text::name);
    if word == "postgres" {
        section.refuse("ready", "PostgreSQL is ready when it answers and its roles are there; leave it out");
    }
    let ready = if word == "postgres" { None } else { ready::read(&mut section) };
    let limits = limits::read(&mut section);
    section.finish();
    checked.ok()?;
    Some(Process {
        name,
        on: on?.value,
        kind: kind?,
        user: user.map(|user| user.value),
        stop_signal: stop_signal.map(|signal| signal.value),
        stop_timeout_ms: stop_timeout.map_or(STOP_TIMEOUT_MS, |time| time.value),
        after: after.map(|after| after.value).unwrap_or_default(),
        ready,
        limits,
    })
}

fn kind(reader: &Reader<'_>, section: &mut Section<'_>, word: &str) -> Option<SiteProcess> {
    match word {
        "nginx" => nginx(reader, section),
        "postgres" => Some(SiteProcess::Postgres),
        "prometheus" => {
            let place = section.span;
            let port = section.port("port", 1).unwrap_or(At { value: PROMETHEUS_PORT, span: place });
            Some(SiteProcess::Prometheus { port, rules: reader.path(section, "rules") })
        }
        _ => command(reader, section),
    }
}

fn nginx(reader: &Reader<'_>, section: &mut Section<'_>) -> Option<SiteProcess> {
    let root = reader.path(section, "root");
    let root = section.need("root", root, "root = \"www\"");
    let dynamic = section.list("dynamic", "a list of path prefixes", text::url_path);
    let upstream = section.parse("upstream", "a service's name", text::name);
    match (&dynamic, &upstream) {
        (Some(dynamic), None) if !dynamic.is_empty() && !section.has("upstream") => {
            section.faults.error(dynamic.span, "`dynamic` needs `upstream`: the service that answers these paths");
        }
        (None, Some(upstream)) if !section.has("dynamic") => {
            section.faults.error(upstream.span, "`upstream` needs `dynamic`: the paths that go there");
        }
        _ => {}
    }
    let dynamic = dynamic.map(|list| list.value.into_iter().map(|path| path.value).collect()).unwrap_or_default();
    Some(SiteProcess::Nginx { root: root?, dynamic, upstream })
}

fn command(reader: &Reader<'_>, section: &mut Section<'_>) -> Option<SiteProcess> {
    let words = section.list("command", "a list: the program and its arguments", text::template);
    let words = section.need("command", words, "command = [\"/usr/bin/program\"]");
    if let Some(words) = &words
        && words.first().is_none_or(|program| program.is_empty())
    {
        section.faults.error(words.span, format!("`command` in {} names no program", section.title));
    }
    let mut environment = BTreeMap::new();
    if let Some(table) = section.table("environment", "{ NAME = \"value\" }") {
        let faults = table.faults;
        for (name, value) in table.strings() {
            if name.is_empty() || name.contains(['=', '\0']) {
                faults.error(name.span, format!("`{}` is no name of an environment variable", name.value));
            }
            if let Err(why) = text::template(&value) {
                faults.error(value.span, format!("`{}` in `environment` of {}: {why}", name.value, section.title));
            }
            environment.insert(name.value, value.value);
        }
    }
    let folder = reader.path(section, "folder");
    let files = files::read(reader, section);
    let reload_signal = section.parse("reload_signal", "a signal's name", text::signal);
    if let Some(signal) = &reload_signal
        && files.is_empty()
        && !section.has("files")
    {
        section.faults.error(signal.span, "`reload_signal` tells that `files` have changed, and there are none");
    }
    let mut command: Vec<String> = words?.value.into_iter().map(|word| word.value).collect();
    if let Some(program) = command.first_mut()
        && program.contains('/')
    {
        // A bare name is looked up in PATH; a relative path is relative to the site file, as every path is.
        *program = reader.base.join(&*program).to_string_lossy().into_owned();
    }
    let reload_signal = reload_signal.map(|signal| signal.value);
    Some(SiteProcess::Command { command, environment, folder, files, reload_signal })
}
