//! What counts an open connection: the rules that its SYN was asked by, and no other.

use std::net::{Ipv4Addr, Ipv6Addr};

use foobar_common::abi::BucketKey;
use foobar_common::address::{Address, Be16, Family, Tuple};
use foobar_common::firewall::{Ledger, count_open, judge};
use foobar_common::host::HostTables;
use foobar_common::parse::{Headers, TCP};
use foobar_common::rules::compile::{Surroundings, compile};
use foobar_common::rules::{Action, Limit, Limited, Protocol, Rate, Rule};
use foobar_common::tables::Tables as _;
use foobar_common::verdict::Reason;

/// Keys in the order in which they are counted.
#[derive(Default)]
struct Keys(Vec<BucketKey>);

impl Ledger for Keys {
    fn count(&mut self, key: &BucketKey) {
        self.0.push(*key);
    }
}

const fn open(most: u32) -> Limit {
    Limit { what: Limited::Open(most), per4: 24, per6: 64 }
}

fn on_port(name: &str, port: u16, action: Action) -> Rule {
    Rule { protocol: Protocol::Tcp(vec![port..=port]), ..Rule::any(name, action) }
}

#[test]
fn limits_in_front_of_the_rule_that_decides_count() {
    let pace = Rate { count: 1, period_ms: 1_000, burst: 1 };
    let tables = tables(&[
        on_port("elsewhere", 25, Action::Limit(open(1))),
        on_port("paced", 22, Action::Limit(Limit { what: Limited::Connections(pace), ..open(1) })),
        on_port("few", 22, Action::Limit(open(1))),
        on_port("tried", 22, Action::Shadow(Some(open(1)))),
        Rule {
            sources: vec!["198.51.100.0/24".parse().expect("a prefix")].into(),
            ..on_port("others", 22, Action::Limit(open(1)))
        },
        on_port("ssh", 22, Action::Allow),
        on_port("behind", 22, Action::Limit(open(1))),
    ]);
    let slots = |keys: Vec<BucketKey>| keys.into_iter().map(|key| key.rule).collect::<Vec<_>>();
    assert_eq!(slots(counted(&tables, &syn4(22))), [2, 3]);
    assert_eq!(slots(counted(&tables, &syn6(22))), [2, 3]);
    assert_eq!(slots(counted(&tables, &syn4(25))), [0]);
    assert_eq!(slots(counted(&tables, &syn4(80))), []);
}

#[test]
fn no_limit_counts_nothing() {
    assert!(counted(&tables(&[on_port("ssh", 22, Action::Allow)]), &syn4(22)).is_empty());
    assert!(counted(&tables(&[]), &syn4(22)).is_empty());
}

/// What is counted is what the next SYN is asked by: at the limit it is dropped, and one below it is not.
#[test]
fn the_next_syn_meets_the_count() {
    let rules = [on_port("few", 22, Action::Limit(open(3))), on_port("ssh", 22, Action::Allow)];
    fn meets<const W: usize>(rules: &[Rule], syn: &Headers<W>)
    where
        Address<W>: Family<W>,
    {
        let mut tables = tables(rules);
        for opened in 0..3 {
            assert!(verdict(&tables, syn).is_ok(), "after {opened}");
            for key in counted(&tables, syn) {
                *tables.open.entry(key).or_default() += 1;
            }
        }
        assert_eq!(verdict(&tables, syn), Err(Reason::Limit));
    }
    meets(&rules, &syn4(22));
    meets(&rules, &syn6(22));
}

/// 192.0.2.0/24 and c000:200::/64 have the same bits where a key holds them.
#[test]
fn families_share_no_key() {
    let tables = tables(&[on_port("few", 22, Action::Limit(open(3))), on_port("ssh", 22, Action::Allow)]);
    let (four, six) = (counted(&tables, &syn4(22)), counted(&tables, &syn6(22)));
    assert_eq!((four.len(), six.len()), (1, 1));
    assert_eq!((four[0].rule, four[0].source), (six[0].rule, six[0].source));
    assert_ne!(four, six);
}

fn tables(rules: &[Rule]) -> HostTables {
    HostTables::new(compile(rules, &Surroundings::default()).expect("few rules"))
}

fn counted<const W: usize>(tables: &HostTables, syn: &Headers<W>) -> Vec<BucketKey>
where
    Address<W>: Family<W>,
{
    let mut keys = Keys::default();
    count_open(syn, tables, tables.generation().expect("rules"), &mut keys);
    keys.0
}

fn verdict<const W: usize>(tables: &HostTables, syn: &Headers<W>) -> Result<(), Reason>
where
    Address<W>: Family<W>,
{
    judge(syn, tables, tables.generation().expect("rules"), 60).map(drop)
}

fn syn4(port: u16) -> Headers<1> {
    syn([Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(198, 51, 100, 1)].map(Address::from), port)
}

fn syn6(port: u16) -> Headers<4> {
    let source = Ipv6Addr::new(0xc000, 0x200, 0, 0, 0, 0, 0, 7);
    syn([source, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)].map(Address::from), port)
}

fn syn<const W: usize>([source, destination]: [Address<W>; 2], port: u16) -> Headers<W> {
    let (source_port, destination_port) = (Be16::new(40_000), Be16::new(port));
    Headers::of_syn(Tuple::new((source, destination), (source_port, destination_port), TCP))
}
