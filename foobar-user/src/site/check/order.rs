//! `after`: every name is another process of a same server, and somebody can start first.

use crate::site::at::At;
use crate::site::model::{Process, Site};
use crate::site::section::{Collector, nearest};

pub(super) fn check(site: &Site, faults: &Collector) {
    let before = faults.len();
    for process in &site.processes {
        for (index, name) in process.after.iter().enumerate() {
            known(site, process, name, faults);
            if process.after[..index].contains(name) {
                faults.error(name.span, format!("`{}` is named twice in `after`; name it once", name.value));
            }
        }
    }
    if faults.len() == before {
        circles(site, faults);
    }
}

fn find<'a>(site: &'a Site, name: &str) -> Option<&'a Process> {
    site.processes.iter().find(|process| *process.name == name)
}

fn known(site: &Site, process: &Process, name: &At<String>, faults: &Collector) {
    let Some(other) = find(site, name) else {
        let names: Vec<&str> = site.processes.iter().map(|process| process.name.as_str()).collect();
        let hint = nearest(name, &names)
            .map_or_else(|| format!("processes are {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
        return faults.error(name.span, format!("no process is called `{}`; {hint}", name.value));
    };
    if other.name == process.name {
        return faults.error(name.span, format!("`{}` cannot start after itself; leave it out", name.value));
    }
    if !site.servers.iter().any(|server| process.runs_on(server) && other.runs_on(server)) {
        let message = format!(
            "`{}` and `{}` share no server, and servers do not wait for each other; leave it out",
            name.value, process.name.value
        );
        faults.error(name.span, message);
    }
}

/// Tells each circle once, at the entry of its first process by which it goes round.
fn circles(site: &Site, faults: &Collector) {
    let mut told: Vec<&str> = Vec::new();
    for process in &site.processes {
        if told.contains(&process.name.as_str()) {
            continue;
        }
        for entry in &process.after {
            let Some(way) = way(site, entry, &process.name, &mut Vec::new()) else { continue };
            told.push(&process.name);
            told.extend(&way);
            let after: Vec<String> = way.iter().skip(1).map(|name| format!("`{name}`")).collect();
            let round = if after.is_empty() { String::new() } else { format!(" after {},", after.join(" after ")) };
            let message = format!(
                "`{name}` starts after `{entry}`,{round} which starts after `{name}`: none could be the first; take one `after` out",
                name = process.name.value,
                entry = entry.value
            );
            faults.error(entry.span, message);
            break;
        }
    }
}

/// The processes on a way along `after` from one to another.
fn way<'a>(site: &'a Site, from: &'a str, to: &str, seen: &mut Vec<&'a str>) -> Option<Vec<&'a str>> {
    if seen.contains(&from) {
        return None;
    }
    seen.push(from);
    let process = find(site, from)?;
    if process.after.iter().any(|next| *next.value == *to) {
        return Some(vec![from]);
    }
    process.after.iter().find_map(|next| {
        let mut rest = way(site, next, to, seen)?;
        rest.insert(0, from);
        Some(rest)
    })
}
