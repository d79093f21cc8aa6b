//! `[[rule]]`: what derivation cannot know.

use foobar_common::rules::{Action, Protocol};

use super::{Reader, limit, protocol};
use crate::site::at::At;
use crate::site::model::{Peer, UserRule};
use crate::site::section::{Section, nearest};
use crate::site::text;

/// Most events of a rule a second, and how many `log = true` means.
const LOG_MAX: u64 = 10_000;
const LOG_DEFAULT: u64 = 10;

pub(super) fn read(reader: &Reader<'_>, mut section: Section<'_>) -> Option<UserRule> {
    let name = section.parse("name", "a string", text::name);
    let name = section.need("name", name, "name = \"office-only\"");
    if let Some(name) = &name {
        section.title = format!("[[rule]] {}", name.value);
    }
    let on = section.list("on", "a list of roles or server names", text::place);
    let on = section.need("on", on, "on = [\"web\"]");
    let from = peers(&mut section, "from", "any");
    let to = peers(&mut section, "to", "the server's own addresses");
    let matched = protocol::read(&mut section);
    let interfaces = interfaces(&mut section);
    let action = action(&mut section, matched.as_ref().map(|matched| &matched.protocol));
    let log = section.integer_or_flag("log", 0..=LOG_MAX, LOG_DEFAULT);
    if let Some(on) = &on
        && on.is_empty()
    {
        section.faults.error(on.span, format!("`on` in {} names no server; name a role or a server", section.title));
    }
    let (line, _) = reader.source.position(section.span.start);
    section.finish();
    let (from, to) = (from?, to?);
    let from =
        if from.is_empty() { vec![At::new(Peer::Any, on.as_ref()?.span.start..on.as_ref()?.span.end)] } else { from };
    let matched = matched?;
    Some(UserRule {
        name: name?,
        line,
        on: on?.value,
        from,
        to,
        protocol: matched.protocol,
        source_ports: matched.source_ports,
        flags: matched.flags,
        interfaces: interfaces?,
        action: action?,
        log_per_second: u32::try_from(log).ok()?,
    })
}

/// `from` or `to`; an absent key is an empty list, an empty list is a fault because it matches nobody.
fn peers(section: &mut Section<'_>, key: &'static str, default: &str) -> Option<Vec<At<Peer>>> {
    if !section.has(key) {
        section.know(key);
        return Some(Vec::new());
    }
    let list = section.list(key, "a list of roles, server names, prefixes, sets or `any`", text::peer)?;
    if list.is_empty() {
        let message = format!("`{key}` in {} is empty and matches nobody; leave it out for {default}", section.title);
        section.faults.error(list.span, message);
        return None;
    }
    Some(list.value)
}

/// The words of actions.
const ACTIONS: [&str; 4] = ["allow", "deny", "limit", "shadow"];

/// `action` with its `limit`.
fn action(section: &mut Section<'_>, protocol: Option<&Protocol>) -> Option<At<Action>> {
    let word = section.parse("action", "a string", |word| {
        if ACTIONS.contains(&word) {
            return Ok(word.to_owned());
        }
        let hint = nearest(word, &ACTIONS).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        Err(format!("`{word}` is no action; write `allow`, `deny`, `limit` or `shadow`{hint}"))
    });
    let word = section.need("action", word, "action = \"deny\"");
    let Some(word) = word else {
        section.know("limit");
        return None;
    };
    let given = section.has("limit");
    let action = match word.as_str() {
        "allow" | "deny" => {
            section.refuse(
                "limit",
                "a limit needs `action = \"limit\"`, or \"shadow\" to try it; set it or leave this out",
            );
            if *word == "allow" { Action::Allow } else { Action::Deny }
        }
        "limit" => {
            let limit = limit::read(section, protocol);
            Action::Limit(section.need("limit", limit, "limit = { connections = \"10/minute\" }")?)
        }
        _ => match limit::read(section, protocol) {
            None if given => return None,
            limit => Action::Shadow(limit),
        },
    };
    Some(word.map(|_| action))
}

/// `interfaces`; absent means all of the servers'.
fn interfaces(section: &mut Section<'_>) -> Option<Vec<At<String>>> {
    if !section.has("interfaces") {
        section.know("interfaces");
        return Some(Vec::new());
    }
    let list = section.list("interfaces", "a list of interface names", text::interface)?;
    if list.is_empty() {
        let message = format!("`interfaces` in {} is empty and matches nothing; leave it out for all", section.title);
        section.faults.error(list.span, message);
        return None;
    }
    Some(list.value)
}
