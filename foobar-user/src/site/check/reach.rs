//! Rules that no packet reaches: on every server that has them, one earlier rule decides for all their packets.

use std::collections::BTreeMap;

use foobar_common::rules::cover::Shape;

use crate::plan::{Origin, PlannedRule, RULES_MAX, derive_rules};
use crate::site::model::{Server, Site};
use crate::site::section::Collector;

pub(super) fn check(site: &Site, faults: &Collector) {
    // What is known of each rule so far: why no server reaches it, until one does.
    let mut unreached: BTreeMap<String, Option<String>> = BTreeMap::new();
    for server in &site.servers {
        let rules = derive_rules(site, server);
        if rules.len() > RULES_MAX {
            // Refused already, and the comparison of all with all is bounded only below that.
            return;
        }
        for (name, why) in of_server(server, &rules) {
            unreached.entry(name).and_modify(|known| *known = known.take().filter(|_| why.is_some())).or_insert(why);
        }
    }
    for rule in &site.rules {
        if let Some(Some(why)) = unreached.get(rule.name.as_str()) {
            faults.warning(rule.name.span, format!("rule `{}` can never match: {why}", rule.name.value));
        }
    }
}

/// Every rule of the file on this server, with why no packet reaches it, if that is so.
fn of_server(server: &Server, rules: &[PlannedRule]) -> Vec<(String, Option<String>)> {
    let interfaces: Vec<String> = server.interfaces.iter().map(|interface| interface.value.clone()).collect();
    let shapes: Vec<Shape<'_>> = rules.iter().map(|planned| Shape::of(&planned.rule)).collect();
    let mut list = Vec::new();
    for (index, planned) in rules.iter().enumerate() {
        let Origin::Line(_) = planned.origin else { continue };
        let ending = (0..index).filter(|earlier| rules[*earlier].rule.action.ends());
        let cover = ending.into_iter().find(|earlier| shapes[*earlier].covers(&shapes[index], &interfaces));
        let why = if shapes[index].is_empty() {
            Some(
                "no packet has addresses and a protocol of both IPv4 and IPv6; name addresses of one family".to_owned(),
            )
        } else {
            cover.map(|earlier| by(&rules[earlier]))
        };
        list.push((planned.rule.name.clone(), why));
    }
    list
}

fn by(earlier: &PlannedRule) -> String {
    let name = &earlier.rule.name;
    match &earlier.origin {
        Origin::Line(line) => {
            format!("rule `{name}` in line {line} decides for all its packets; put this one before it, or remove it")
        }
        Origin::Derived(from) => {
            format!("the derived rule `{name}` ({from}) decides for all its packets before it; remove it")
        }
    }
}
