//! Named sets: each that a rule names is there, each that is there is named; none is empty or overlaps unnoticed.

use ipnet::IpNet;

use super::files::Extent;
use crate::plan::{self, SetPlan};
use crate::site::at::At;
use crate::site::model::{Peer, Server, Set, Site};
use crate::site::section::{Collector, nearest};
use crate::site::sets::{self, SERVER_PREFIXES_MAX, SETS_MAX, overlaps};

/// Every set that a rule names exists.
pub(super) fn known(site: &Site, faults: &Collector) {
    let names: Vec<&str> = site.sets.iter().map(|set| set.name.as_str()).collect();
    for (peer, name) in used(site).filter(|(_, name)| !names.contains(name)) {
        let hint = nearest(name, &names).map_or_else(
            || format!("add `[set.{name}]` or correct the name"),
            |near| format!("did you mean `set:{near}`?"),
        );
        faults.error(peer.span, format!("no set is called `{name}`; {hint}"));
    }
}

/// Places in rules that name a set.
fn used(site: &Site) -> impl Iterator<Item = (&At<Peer>, &str)> {
    site.rules.iter().flat_map(|rule| rule.from.iter().chain(&rule.to)).filter_map(|peer| match &peer.value {
        Peer::Set(name) => Some((peer, name.as_str())),
        _ => None,
    })
}

/// What the site file itself says of its sets.
pub(super) fn check(site: &Site, faults: &Collector) {
    if let Some(first) = site.sets.get(SETS_MAX) {
        let message = format!("the site has {} sets, and {SETS_MAX} are the most; join some", site.sets.len());
        faults.error(first.name.span, message);
        return;
    }
    for set in &site.sets {
        let name = set.name.as_str();
        if !used(site).any(|(_, used)| used == name) {
            let message =
                format!("no rule names the set `{name}`; write `from = [\"set:{name}\"]` in one, or remove it");
            faults.warning(set.name.span, message);
        }
        if set.file.is_none() && set.prefixes.is_empty() {
            empty(set, faults);
        }
    }
    let inline: Vec<(&Set, Vec<IpNet>)> = site
        .sets
        .iter()
        .filter(|set| set.file.is_none())
        .map(|set| (set, set.prefixes.iter().map(|prefix| prefix.value).collect()))
        .collect();
    overlapping(&inline, |_| true, faults);
}

fn empty(set: &Set, faults: &Collector) {
    let message = format!(
        "the set `{0}` is empty; rules that name it match nobody until `foobar set add` fills it",
        set.name.value
    );
    faults.warning(set.name.span, message);
}

/// What the sets' files hold: all of them, or those that one server needs.
pub(super) fn check_files(site: &Site, extent: Extent<'_>, servers: &[&Server], faults: &Collector) {
    let plans: Vec<(&Server, Vec<SetPlan>)> =
        servers.iter().map(|server| (*server, plan::derive_sets(site, server))).collect();
    let named = |set: &Set| plans.iter().any(|(_, sets)| sets.iter().any(|plan| plan.name == set.name.value));
    let mut read: Vec<(&Set, Vec<IpNet>)> = Vec::new();
    for set in site.sets.iter().filter(|set| matches!(extent, Extent::Site) || named(set)) {
        match sets::read(set) {
            Ok(prefixes) => {
                if prefixes.is_empty() && set.file.is_some() {
                    empty(set, faults);
                }
                read.push((set, prefixes));
            }
            Err(error) => {
                let span = set.file.as_ref().map_or(set.name.span, |file| file.span);
                faults.error(span, format!("set `{}`: {error}", set.name.value));
            }
        }
    }
    for (server, sets) in &plans {
        let mine = read.iter().filter(|(set, _)| sets.iter().any(|plan| plan.name == set.name.value));
        let count: usize = mine.map(|(_, prefixes)| prefixes.len()).sum();
        if count > SERVER_PREFIXES_MAX {
            let message = format!(
                "the sets of server `{}` hold {count} prefixes together, and a server takes {SERVER_PREFIXES_MAX}; \
                 name fewer of them in its rules",
                server.name.value,
            );
            faults.error(server.name.span, message);
        }
    }
    // Sets without a file were compared when the site file was read.
    overlapping(&read, |set| set.file.is_some(), faults);
}

/// Warns of what lies twice in sets; of a set or a pair only where `told` says so of one.
fn overlapping(sets: &[(&Set, Vec<IpNet>)], told: impl Fn(&Set) -> bool, faults: &Collector) {
    let slices: Vec<&[IpNet]> = sets.iter().map(|(_, prefixes)| prefixes.as_slice()).collect();
    let found = overlaps(&slices);
    for (index, count, prefix, cover) in found.within {
        let set = sets[index].0;
        if told(set) {
            let name = &set.name.value;
            let (prefixes, lie, change) =
                if count == 1 { ("prefix", "lies", "changes") } else { ("prefixes", "lie", "change") };
            let message = format!(
                "{count} {prefixes} of the set `{name}` {lie} in wider ones and {change} nothing, such as {prefix} in {cover}"
            );
            faults.warning(set.name.span, message);
        }
    }
    for ((first, a), (second, b)) in found.between {
        let (first, second) = (sets[first].0, sets[second].0);
        if told(first) || told(second) {
            let message = format!(
                "the sets `{}` and `{}` overlap, such as {a} of the one and {b} of the other; is that meant?",
                first.name.value, second.name.value,
            );
            faults.warning(second.name.span, message);
        }
    }
}
