//! Faults and warnings of sets, limits and what else narrows a rule: each edit of good ones is told at its place.

mod common;

use std::path::Path;

use common::{GOOD, edited};
use foobar_user::site::{Checked, Faults, Severity};

/// A set, a rule with every key, and one that names the set; appended to the good file.
const FIREWALL: &str = include_str!("common/firewall.toml");

/// Name, text to replace in the firewall's part, its replacement, the text (its first occurrence there) at which the fault
/// stands, a fragment of the message.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// The rule's limit.
const LIMIT: &str = "{ connections = \"10/minute\", burst = 20, per = 24, per6 = 56 }";

#[rustfmt::skip]
const ERRORS: &[Case] = &[
    // [set.x]
    ("set name bad", "[set.blocked]", "[set.Blocked]", "Blocked", "set name `Blocked` is no name"),
    ("set key unknown", "prefixes =", "prefix =", "prefix =", "did you mean `prefixes`?"),
    ("set prefix bad", "192.0.2.0/25", "192.0.2.0/33", "\"192.0.2.0/33\"", "is no prefix"),
    ("set prefix with host bits", "192.0.2.0/25", "192.0.2.1/25", "\"192.0.2.1/25\"", "write `192.0.2.0/25`"),
    ("set file wrong type", "prefixes = [", "file = 7\nprefixes = [", "7\n", "must be a path"),
    ("set file empty", "prefixes = [", "file = \"\"\nprefixes = [", "\"\"", "leads nowhere"),
    ("set unknown", "set:blocked", "set:bloked", "\"set:bloked\"", "did you mean `set:blocked`?"),
    ("set far from any", "set:blocked", "set:office", "\"set:office\"", "add `[set.office]`"),
    ("set without a name", "set:blocked", "set:", "\"set:\"", "is no name"),
    // limit
    ("limit missing", "limit = {", "# {", "[[rule]]", "lacks `limit`"),
    ("limit with deny", "action = \"limit\"", "action = \"deny\"", LIMIT, "a limit needs `action = \"limit\"`"),
    ("limit with allow", "action = \"limit\"", "action = \"allow\"", LIMIT, "or \"shadow\" to try it"),
    ("limit wrong type", LIMIT, "10", "10\n", "must be a table such as"),
    ("limit of nothing", LIMIT, "{ burst = 20 }", "{ burst", "limits nothing"),
    ("limit misspelt", "connections =", "conections =", "conections", "did you mean `connections`?"),
    ("limit of two", "connections = \"10/minute\"", "packets = \"10/minute\", open = 3", "3,", "a rule has one limit"),
    ("limit of open", "connections = \"10/minute\", burst = 20", "open = 20", "\"eth0\"", "a socket does not know by which interface"),
    ("limit of zero", "10/minute", "0/minute", "\"0/minute\"", "lets nothing by"),
    ("limit above any", "10/minute", "10000001/minute", "\"10000001", "no number from 1 to 10000000"),
    ("limit negative", "10/minute", "-1/minute", "\"-1/minute\"", "no number from 1"),
    ("limit without a time", "10/minute", "10", "\"10\"", "is no rate"),
    ("limit in days", "10/minute", "10/day", "\"10/day\"", "write second, minute, hour"),
    ("limit in a misspelt unit", "10/minute", "10/minut", "\"10/minut\"", "did you mean `minute`?"),
    ("burst zero", "burst = 20", "burst = 0", "0, per", "must be from 1 to"),
    ("burst that takes days", "burst = 20", "burst = 1000000", "1000000", "takes 1666 hours"),
    ("burst of open", "connections = \"10/minute\"", "open = 3", "20, per", "leave it out"),
    ("open zero", "connections = \"10/minute\", burst = 20", "open = 0", "0, per", "must be from 1 to"),
    ("per zero", "per = 24", "per = 0", "0, per6", "must be from 1 to 32"),
    ("per too long", "per = 24", "per = 33", "33", "must be from 1 to 32"),
    ("per6 too long", "per6 = 56", "per6 = 129", "129", "must be from 1 to 128"),
    ("connections of udp", "\"tcp\"\nports = [\"22\"]\nsource_ports = [\"1024-65535\"]\ntcp_flags = \"syn,!ack\"", "\"udp\"", "\"10/minute\"", "only tcp has connections"),
    ("log wrong type", "log = 10", "log = \"much\"", "\"much\"", "must be an integer"),
    ("log too much", "log = 10", "log = 10001", "10001", "from 0 to 10000"),
    ("action misspelt", "\"limit\"", "\"limt\"", "\"limt\"", "did you mean `limit`?"),
    // Ports, flags, interfaces.
    ("flags without tcp", "protocol = \"tcp\"\nports = [\"22\"]\nsource_ports = [\"1024-65535\"]", "", "\"syn,!ack\"", "only tcp has flags"),
    ("flags with udp", "\"tcp\"", "\"udp\"", "\"syn,!ack\"", "only tcp has flags"),
    ("flags with icmp", "\"tcp\"\nports = [\"22\"]\nsource_ports = [\"1024-65535\"]", "\"icmp\"", "\"syn,!ack\"", "only tcp has flags"),
    ("flags contradict", "syn,!ack", "syn,!syn", "\"syn,!syn\"", "cannot be both set and not set"),
    ("flag twice", "syn,!ack", "syn,syn", "\"syn,syn\"", "named twice"),
    ("flag unknown", "syn,!ack", "synn", "\"synn\"", "did you mean `syn`?"),
    ("flags empty", "syn,!ack", "", "\"\"", "is no TCP flag"),
    ("source ports without a protocol", "protocol = \"tcp\"\nports = [\"22\"]\n", "", "[\"1024-65535\"]", "only tcp and udp have ports"),
    ("source ports with icmp", "\"tcp\"\nports = [\"22\"]", "\"icmp\"", "[\"1024-65535\"]", "ICMP has no ports"),
    ("source ports empty", "[\"1024-65535\"]", "[]", "[]", "matches nothing"),
    ("source ports reversed", "1024-65535", "65535-1024", "\"65535-1024\"", "write `1024-65535`"),
    ("interfaces empty", "[\"eth0\"]", "[]", "[]", "matches nothing"),
    ("interface of nobody", "[\"eth0\"]", "[\"eth7\"]", "\"eth7\"", "did you mean `eth0`?"),
    ("interface far from any", "[\"eth0\"]", "[\"wan\"]", "\"wan\"", "they have eth0, eth1"),
    ("interface twice", "[\"eth0\"]", "[\"eth0\", \"eth0\"]", "\"eth0\"]", "named twice"),
    ("interface bad", "[\"eth0\"]", "[\"a b\"]", "\"a b\"", "no interface name"),
    ("name of a derived rule", "\"brute\"", "\"spoofed\"", "\"spoofed\"", "name of a derived rule"),
    ("name of another derived rule", "\"brute\"", "\"bogons\"", "\"bogons\"", "name of a derived rule"),
];

#[rustfmt::skip]
const WARNINGS: &[Case] = &[
    // Sets.
    ("set that nobody names", "\"set:blocked\"", "\"any\"", "blocked]", "no rule names the set `blocked`"),
    ("set empty", "prefixes = [\"192.0.2.0/25\", \"2001:db8:bad::/48\"]", "", "blocked]", "is empty"),
    ("set of no prefixes", "[\"192.0.2.0/25\", \"2001:db8:bad::/48\"]", "[]", "blocked]", "`foobar set add` fills it"),
    ("prefix within another", "[\"192.0.2.0/25\",", "[\"192.0.2.0/25\", \"192.0.2.7\", \"192.0.2.7\",", "blocked]", "1 prefix of the set `blocked` lies in wider ones and changes nothing, such as 192.0.2.7/32 in 192.0.2.0/25"),
    ("sets that overlap", "[set.blocked]", "[set.more]\nprefixes = \"192.0.2.0/24\"\n[set.blocked]", "blocked]", "overlap, such as 192.0.2.0/24 of the one and 192.0.2.0/25 of the other"),
    // Rules that never match.
    ("spoofed before it", "[\"set:blocked\"]", "[\"127.0.0.1\", \"::1\"]", "\"blocked\"", "can never match: the derived rule `spoofed`"),
    ("failsafe before it", "from = [\"any\"]", "from = [\"10.0.1.41\"]", "\"brute\"", "the derived rule `failsafe-ssh` ([site] admin)"),
    ("families apart", "[\"set:blocked\"]\nto = [\"any\"]", "[\"198.51.100.1\"]\nto = [\"fd00:1::1\"]", "\"blocked\"", "of both IPv4 and IPv6"),
    ("icmp for IPv6 only", "[\"set:blocked\"]\nto = [\"any\"]", "[\"2001:db8::1\"]\nprotocol = \"icmp\"", "\"blocked\"", "of both IPv4 and IPv6"),
    ("flags of no packet", "syn,!ack", "syn,fin", "\"brute\"", "dropped before the rules"),
];

fn parse(text: &str) -> Result<Checked, Faults> {
    Checked::parse(Path::new("site.toml"), text)
}

/// The good file with the firewall's part edited, and the byte at which a fault is expected.
fn text_of((name, from, to, mark, _): &Case) -> (String, usize) {
    assert!(FIREWALL.contains(from), "{name}: no `{from}` to replace");
    let part = FIREWALL.replacen(from, to, 1);
    let byte = part.find(mark).unwrap_or_else(|| panic!("{name}: the edited part holds no `{mark}`"));
    (format!("{GOOD}{part}"), GOOD.len() + byte)
}

fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte];
    (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1)
}

fn told(faults: &Faults, place: (usize, usize), message: &str, severity: Severity) -> bool {
    faults.positions().any(|(line, column, fault)| {
        (line, column) == place && fault.message.contains(message) && fault.severity == severity
    })
}

#[test]
fn the_good_part_is_taken_without_a_warning() {
    let checked = parse(&format!("{GOOD}{FIREWALL}")).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(checked.warnings.is_empty(), "{}", checked.warnings);
}

#[test]
fn every_error_is_told_at_its_place() {
    let mut wrong = Vec::new();
    for case in ERRORS {
        let (text, byte) = text_of(case);
        match parse(&text) {
            Ok(_) => wrong.push(format!("{}: was taken", case.0)),
            Err(faults) if told(&faults, line_and_column(&text, byte), case.4, Severity::Error) => {}
            Err(faults) => wrong.push(format!("{}: expected `{}`, found\n{faults}", case.0, case.4)),
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), ERRORS.len(), wrong.join("\n\n"));
}

#[test]
fn every_warning_is_told_at_its_place_and_the_file_is_taken() {
    let mut wrong = Vec::new();
    for case in WARNINGS {
        let (text, byte) = text_of(case);
        match parse(&text) {
            Ok(checked) if told(&checked.warnings, line_and_column(&text, byte), case.4, Severity::Warning) => {}
            Ok(checked) => wrong.push(format!("{}: expected `{}`, found\n{}", case.0, case.4, checked.warnings)),
            Err(faults) => wrong.push(format!("{}: was refused\n{faults}", case.0)),
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), WARNINGS.len(), wrong.join("\n\n"));
}

/// So many rules of the same kind on web1, each for a port of its own.
fn rules(count: usize, more: &str) -> String {
    let rule = |n: usize| {
        let ports = format!("protocol = \"tcp\"\nports = [\"{}\"]", n + 1);
        format!("\n[[rule]]\nname = \"r{n}\"\non = [\"web1\"]\n{ports}\n{}", more.replace("{n}", &n.to_string()))
    };
    (0..count).map(rule).collect()
}

#[test]
fn maxima_are_refused_one_above() {
    let limited = "action = \"shadow\"\n";
    let open = "action = \"limit\"\nlimit = { open = 1{n} }\n";
    let on = |names: &str| {
        format!(
            "interfaces = [\"eth0\"]\n[[server]]\nname = \"wide\"\nrole = \"app\"\naddress = \"10.0.1.99\"\ninterfaces = [{names}]\n"
        )
    };
    let names = |count: usize| (0..count).map(|n| format!("\"e{n}\"")).collect::<Vec<_>>().join(", ");
    let wide = |count: usize| {
        let text = edited("interfaces = [\"eth0\"]\n", &on(&names(count)));
        format!("{text}\n[[rule]]\nname = \"x\"\non = [\"wide\"]\naction = \"deny\"\ninterfaces = [{}]\n", names(count))
    };
    let sets = |count: usize| -> String {
        let one = |n: usize| {
            format!(
                "\n[set.s{n}]\nprefixes = \"192.0.2.{n}\"\n[[rule]]\nname = \"r{n}\"\non = [\"lb1\"]\nfrom = \"set:s{n}\"\naction = \"deny\"\n"
            )
        };
        format!("{GOOD}{}", (0..count).map(one).collect::<String>())
    };
    let cases = [
        (
            "limits and shadows",
            format!("{GOOD}{}", rules(32, limited)),
            format!("{GOOD}{}", rules(33, limited)),
            "33 rules that limit or shadow",
        ),
        (
            "limits of open connections",
            format!("{GOOD}{}", rules(8, open)),
            format!("{GOOD}{}", rules(9, open)),
            "9 rules that limit open connections, and a connection can be counted by 8",
        ),
        ("interfaces", wide(16), wide(17), "name 17 interfaces"),
        ("sets", sets(64), sets(65), "the site has 65 sets"),
    ];
    for (what, most, above, message) in cases {
        assert!(parse(&most).is_ok(), "{what}: {}", parse(&most).expect_err("refused"));
        let faults = parse(&above).expect_err(what);
        assert!(faults.to_string().contains(message), "{what}: {faults}");
    }
}

#[test]
fn a_rule_behind_a_wider_one_names_it_with_its_line() {
    let rule = |name: &str, rest: &str| format!("\n[[rule]]\nname = \"{name}\"\n{rest}\n");
    let wide = "on = [\"web\", \"app\"]\nprotocol = \"tcp\"\nports = [\"20-30\", \"31-40\"]\naction = \"deny\"";
    let narrow = "on = [\"web1\", \"app2\"]\nfrom = [\"198.51.100.0/24\"]\nprotocol = \"tcp\"\nports = [\"25-35\"]\naction = \"allow\"";
    let line = GOOD.lines().count() + 2;
    let warnings = |second: &str| {
        let text = format!("{GOOD}{}{}", rule("wide", wide), rule("narrow", second));
        parse(&text).unwrap_or_else(|faults| panic!("{faults}")).warnings.to_string()
    };
    let told = format!("rule `narrow` can never match: rule `wide` in line {line} decides for all its packets");
    assert!(warnings(narrow).contains(&told), "{}", warnings(narrow));
    // One server of its own, one port more, other flags or a passing rule before it: some packet reaches it.
    for (from, to) in
        [("\"app2\"", "\"app2\", \"lb1\""), ("25-35", "25-41"), ("protocol = \"tcp\"", "protocol = \"udp\"")]
    {
        let second = narrow.replace(from, to);
        assert_eq!(warnings(&second), "", "{second}");
    }
    let shadow = wide.replace("deny", "shadow");
    let text = format!("{GOOD}{}{}", rule("wide", &shadow), rule("narrow", narrow));
    assert!(parse(&text).expect("taken").warnings.is_empty());
}
