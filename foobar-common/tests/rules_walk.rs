//! The linear walk: limits and shadows let a packet go on, allow and deny do not.

use std::net::IpAddr;

use foobar_common::rules::linear::{End, Fields, walk};
use foobar_common::rules::{Action, Limit, Limited, Rate, Rule};

#[test]
fn the_walk_passes_limits_and_shadows() {
    let limit = Limit { what: Limited::Connections(Rate { count: 1, period_ms: 1_000, burst: 1 }), per4: 32, per6: 64 };
    let rules = [
        Rule::any("tried", Action::Shadow(None)),
        Rule::any("paced", Action::Shadow(Some(limit))),
        Rule::any("limited", Action::Limit(limit)),
        Rule::any("allowed", Action::Allow),
        Rule::any("behind", Action::Shadow(None)),
    ];
    let address: IpAddr = "192.0.2.1".parse().expect("an address");
    let syn = Fields { flags: 0x02, ..Fields::between(address, address, 6) };
    let above = |rules: &[Rule], fields: &Fields<'_>| walk(rules, fields, |_, _| true);
    let below = |rules: &[Rule], fields: &Fields<'_>| walk(rules, fields, |_, _| false);
    assert_eq!((above(&rules, &syn).shadowed, above(&rules, &syn).end), (vec![0, 1], End::Limit(2)));
    assert_eq!((below(&rules, &syn).shadowed, below(&rules, &syn).end), (vec![0], End::Allow(3)));
    // Only the first packet of a connection is charged.
    for other in [Fields { flags: 0x12, ..syn }, Fields { flags: 0x10, ..syn }, Fields { protocol: 17, ..syn }] {
        assert_eq!(above(&rules, &other).end, End::Allow(3));
    }
    assert_eq!(above(&rules[..2], &syn).end, End::NoRule);
}
