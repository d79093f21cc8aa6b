//! Sets over changes, expiry, restarts and reboots.

use std::fs;
use std::time::Duration;

use super::*;

const NOW: Now = Now { monotonic_ns: 5_000_000_000, wall_ms: 1_700_000_000_000 };

fn net(text: &str) -> IpNet {
    prefix::parse(text).unwrap()
}

fn site(inline: &[&str]) -> BTreeMap<String, Declared> {
    let prefixes: Vec<IpNet> = inline.iter().map(|text| net(text)).collect();
    BTreeMap::from([("blocked".to_owned(), Declared::new(&prefixes, None))])
}

fn sets(folder: &Path, inline: &[&str]) -> Sets {
    let mut sets = Sets::new(folder);
    sets.declare(site(inline), NOW).unwrap();
    sets
}

fn prefixes(sets: &Sets) -> Vec<String> {
    sets.sets().into_iter().flat_map(|set| set.entries).map(|entry| entry.prefix.to_string()).collect()
}

#[test]
fn entries_survive_a_restart_and_lose_the_time_that_passed() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = sets(folder.path(), &[]);
    before.add("blocked", &[net("192.0.2.1")], Some(NOW.after(Duration::from_secs(60)))).unwrap();
    before.add("blocked", &[net("192.0.2.2")], Some(NOW.after(Duration::from_secs(10)))).unwrap();
    before.add("blocked", &[net("2001:db8::/32")], None).unwrap();

    // After a reboot the monotonic clock has begun anew.
    let later = Now { monotonic_ns: 1_000, wall_ms: NOW.wall_ms + 20_000 };
    let mut after = Sets::new(folder.path());
    after.declare(site(&[]), later).unwrap();
    assert_eq!(prefixes(&after), ["192.0.2.1/32", "2001:db8::/32"]);
    assert_eq!(after.next_expiry_ns(), Some(1_000 + 40_000_000_000));
}

#[test]
fn what_has_expired_goes_and_what_the_site_declares_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut sets = sets(folder.path(), &["192.0.2.1"]);
    let until = Some(NOW.after(Duration::from_secs(1)));
    let change = sets.add("blocked", &[net("192.0.2.1"), net("192.0.2.2")], until).unwrap();
    assert_eq!(change.put.len(), 1, "the site's own entry never gets an end");
    assert!(sets.expire(NOW).is_empty());
    let gone = sets.expire(NOW.after(Duration::from_secs(1)));
    assert_eq!(gone, [("blocked".to_owned(), vec![net("192.0.2.2")])]);
    assert_eq!((prefixes(&sets), sets.next_expiry_ns()), (vec!["192.0.2.1/32".to_owned()], None));
}

#[test]
fn an_entry_that_is_added_again_lives_as_it_was_added_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut sets = sets(folder.path(), &[]);
    sets.add("blocked", &[net("192.0.2.1")], Some(NOW.after(Duration::from_secs(1)))).unwrap();
    sets.add("blocked", &[net("192.0.2.1")], None).unwrap();
    assert!(sets.expire(NOW.after(Duration::from_secs(9))).is_empty());
    assert_eq!(prefixes(&sets), ["192.0.2.1/32"]);
}

#[test]
fn only_entries_of_the_run_time_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list.txt");
    fs::write(&file, "# list\n198.51.100.7\n203.0.113.0/24 # a network\n").unwrap();
    let contents = declared::sorted(vec![net("203.0.113.0/24"), net("198.51.100.7")]);
    let declared = Declared::new(&[net("192.0.2.0/24")], Some((file, contents)));
    let mut sets = Sets::new(folder.path());
    sets.declare(BTreeMap::from([("blocked".to_owned(), declared)]), NOW).unwrap();
    sets.add("blocked", &[net("192.0.2.9")], None).unwrap();

    let mut refusal = |text: &str| sets.delete("blocked", &[net("192.0.2.9"), net(text)]).unwrap_err().to_string();
    assert!(refusal("203.0.113.0/24").contains("list.txt:3"));
    assert!(refusal("192.0.2.0/24").contains("[set.blocked] of the site file"));
    assert!(refusal("192.0.2.8").contains("it lies in its entry 192.0.2.0/24"));
    assert!(refusal("10.0.0.1").contains("is no entry"));
    let change = sets.delete("blocked", &[net("192.0.2.9")]).unwrap();
    assert_eq!(change.take, [net("192.0.2.9")], "a refusal has deleted nothing");
    assert!(sets.add("other", &[], None).unwrap_err().to_string().contains("has blocked"));
}

#[test]
fn a_change_is_undone_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut sets = sets(folder.path(), &[]);
    let end = Some(NOW.after(Duration::from_secs(7)));
    sets.add("blocked", &[net("192.0.2.1")], end).unwrap();
    let change = sets.add("blocked", &[net("192.0.2.1"), net("192.0.2.2"), net("192.0.2.2")], None).unwrap();
    sets.undo("blocked", change).unwrap();
    assert_eq!(prefixes(&sets), ["192.0.2.1/32"]);
    assert_eq!(sets.next_expiry_ns(), end.map(|end| end.monotonic_ns));
    let mut read = Sets::new(folder.path());
    read.declare(site(&[]), NOW).unwrap();
    assert_eq!(prefixes(&read), ["192.0.2.1/32"]);
}

#[test]
fn a_damaged_line_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("blocked.entries"), "192.0.2.1/32 -\nnonsense\n192.0.2.2/32 soon\n").unwrap();
    assert_eq!(prefixes(&sets(folder.path(), &[])), ["192.0.2.1/32"]);
}

#[test]
fn a_list_tells_sources_and_time_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut sets = sets(folder.path(), &["192.0.2.0/24"]);
    sets.add("blocked", &[net("192.0.2.1")], Some(NOW.after(Duration::from_secs(60)))).unwrap();
    let rows: Vec<Row> = sets.list("blocked").unwrap().rows(NOW.after(Duration::from_secs(15))).collect();
    assert_eq!((rows[0].source, rows[0].left()), (Source::RunTime, Some(Duration::from_secs(45))));
    assert_eq!((rows[1].source, rows[1].left()), (Source::Inline, None));
    assert_eq!(sets.summaries()[0].entries(), 2);
}

#[test]
fn entries_go_with_the_last_rule_that_names_their_set_but_not_before_that_is_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let mut sets = sets(folder.path(), &[]);
    sets.add("blocked", &[net("192.0.2.1")], None).unwrap();
    // A plan without the set that is taken back has dropped nothing.
    let before = sets.declare(BTreeMap::new(), NOW).unwrap();
    let files = sets.files();
    sets.declare(before, NOW).unwrap();
    assert_eq!(prefixes(&sets), ["192.0.2.1/32"]);
    sets.files().drop_others().unwrap();
    assert_eq!(prefixes(&sets), ["192.0.2.1/32"]);
    sets.declare(BTreeMap::new(), NOW).unwrap();
    files.drop_others().unwrap();
    sets.declare(site(&[]), NOW).unwrap();
    assert_eq!(prefixes(&sets), [""; 0]);
}
