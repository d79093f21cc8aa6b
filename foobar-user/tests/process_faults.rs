//! Supervision in the site file: what is refused, where and why, each beside a neighbour that is taken.

mod common;

use std::path::Path;

use common::edited;
use foobar_user::plan::{Limits, ProcessKind, Ready, ReadyCheck, plan};
use foobar_user::site::{Checked, Faults, Severity};

fn parse(text: &str) -> Result<Checked, Faults> {
    Checked::parse(Path::new("site.toml"), text)
}

/// The good file with more keys for the guestbook, and maybe more sections.
fn with(keys: &str, sections: &str) -> String {
    let good = edited("stop_signal = \"TERM\"\nstop_timeout_ms = 5000\n", "");
    format!("{}{sections}", good.replacen("[process.guestbook]\n", &format!("[process.guestbook]\n{keys}\n"), 1))
}

/// Name, keys of `[process.guestbook]`, further sections, the text at which the fault stands, a fragment of the message.
type Bad = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// A program on the servers of the guestbook, and one elsewhere.
const OTHERS: &str = "\n[process.other]\non = [\"app\"]\ncommand = [\"/bin/true\"]\n\n[process.far]\non = [\"web\"]\ncommand = [\"/bin/true\"]\n";

#[rustfmt::skip]
const BAD: &[Bad] = &[
    ("signal unknown", "stop_signal = \"STOPP\"", "", "\"STOPP\"", "is no signal that stops a process"),
    ("signal with its prefix", "stop_signal = \"SIGTERM\"", "", "\"SIGTERM\"", "write `TERM`"),
    ("stop timeout zero", "stop_timeout_ms = 0", "", "0\n", "from 100 to 600000"),
    ("after nobody", "after = [\"othr\"]", OTHERS, "\"othr\"", "did you mean `other`?"),
    ("after one that is far", "after = [\"zzzzzz\"]", OTHERS, "\"zzzzzz\"", "no process is called `zzzzzz`; processes are"),
    ("after itself", "after = [\"guestbook\"]", "", "\"guestbook\"]", "cannot start after itself"),
    ("after another server's", "after = [\"far\"]", OTHERS, "\"far\"", "share no server"),
    ("after one twice", "after = [\"other\", \"other\"]", OTHERS, "2:\"other\"", "named twice"),
    ("after wrong type", "after = true", "", "true", "must be a list of processes"),
    ("circle of two", "after = [\"b\"]", "\n[process.b]\non = [\"app\"]\ncommand = [\"/bin/true\"]\nafter = [\"guestbook\"]\n", "\"b\"]", "`guestbook` starts after `b`, which starts after `guestbook`: none could be the first"),
    ("circle of three", "after = [\"b\"]", "\n[process.b]\non = [\"app\"]\ncommand = [\"/bin/true\"]\nafter = [\"c\"]\n\n[process.c]\non = [\"app\"]\ncommand = [\"/bin/true\"]\nafter = [\"guestbook\"]\n", "\"b\"]", "`guestbook` starts after `b`, after `c`, which starts after `guestbook`"),
    ("limits empty", "limits = {}", "", "{}", "limits nothing"),
    ("limits wrong type", "limits = 5", "", "5\n", "must be a table such as"),
    ("limits unknown", "limits = { memry = \"1GiB\" }", "", "memry", "did you mean `memory`?"),
    ("weight zero", "limits = { cpu_weight = 0 }", "", "0 }", "from 1 to 10000"),
    ("weight too large", "limits = { cpu_weight = 10001 }", "", "10001", "from 1 to 10000"),
    ("cpu zero", "limits = { cpu = 0 }", "", "0 }", "from 0.01 to 1024"),
    ("cpu negative", "limits = { cpu = -1.5 }", "", "-1.5", "from 0.01 to 1024"),
    ("cpu too little", "limits = { cpu = 0.009 }", "", "0.009", "from 0.01 to 1024"),
    ("cpu no number", "limits = { cpu = nan }", "", "nan", "from 0.01 to 1024"),
    ("cpu wrong type", "limits = { cpu = \"2\" }", "", "\"2\"", "must be a number"),
    ("memory zero", "limits = { memory = \"0MiB\" }", "", "\"0MiB\"", "too little to start any program"),
    ("memory too small", "limits = { memory = \"4095KiB\" }", "", "\"4095KiB\"", "4MiB is the least"),
    ("memory without a unit", "limits = { memory = \"512\" }", "", "\"512\"", "is no size"),
    ("memory a number", "limits = { memory = 512 }", "", "512", "must be a size"),
    ("processes zero", "limits = { processes = 0 }", "", "0 }", "from 1 to"),
    ("ready without a kind", "ready = { port = 8000 }", "", "{ port = 8000", "lacks `kind`"),
    ("ready unknown", "ready = { kind = \"tpc\" }", "", "\"tpc\"", "did you mean `tcp`?"),
    ("ready without a port", "ready = { kind = \"tcp\" }", "", "{ kind", "lacks `port`"),
    ("ready port zero", "ready = { kind = \"tcp\", port = 0 }", "", "0 }", "from 1 to 65535"),
    ("ready with another's key", "ready = { kind = \"tcp\", port = 1, path = \"/\" }", "", "\"/\"", "this is for `kind = \"http\"`"),
    ("ready by nobody", "ready = { kind = \"script\", command = [] }", "", "[]", "named by its whole path"),
    ("ready by a bare name", "ready = { kind = \"script\", command = [\"check\"] }", "", "[\"check\"]", "named by its whole path"),
    ("ready at once", "ready = { kind = \"tcp\", port = 1, timeout_ms = 0 }", "", "0 }", "from 100 to"),
    ("none with a time", "ready = { kind = \"none\", timeout_ms = 500 }", "", "500", "this is for `kind = \"tcp\"`"),
    ("file without content", "files = [{ path = \"/etc/a\" }]", "", "{ path", "lacks `template`"),
    ("file with both", "files = [{ path = \"/etc/a\", template = \"t\", content = \"c\" }]", "", "\"c\"", "leave one out"),
    ("file relative", "files = [{ path = \"etc/a\", content = \"c\" }]", "", "\"etc/a\"", "no whole path"),
    ("file upwards", "files = [{ path = \"/etc/../a\", content = \"c\" }]", "", "\"/etc/../a\"", "no whole path"),
    ("file twice", "files = [{ path = \"/a\", content = \"c\" }, { path = \"/a\", content = \"d\" }]", "", "2:\"/a\"", "written twice"),
    ("file with an unknown placeholder", "files = [{ path = \"/a\", content = \"{adress}\" }]", "", "\"{adress}\"", "unknown placeholder `{adress}`"),
    ("mode not octal", "files = [{ path = \"/a\", content = \"c\", mode = \"0988\" }]", "", "\"0988\"", "three octal digits"),
    ("mode with special bits", "files = [{ path = \"/a\", content = \"c\", mode = \"4755\" }]", "", "\"4755\"", "write `0755`"),
    ("mode unreadable", "files = [{ path = \"/a\", content = \"c\", mode = \"0040\" }]", "", "\"0040\"", "add 0400"),
    ("reload without files", "reload_signal = \"HUP\"", "", "\"HUP\"", "there are none"),
    ("reload by an unknown signal", "reload_signal = \"HUB\"\nfiles = [{ path = \"/a\", content = \"c\" }]", "", "\"HUB\"", "is no signal"),
    ("folder wrong type", "folder = 7", "", "7\n", "must be a path"),
];

/// The same keys where they can be taken.
#[rustfmt::skip]
const GOOD_NEIGHBOURS: &[(&str, &str)] = &[
    ("stop_signal = \"QUIT\"\nstop_timeout_ms = 100", ""),
    ("after = [\"other\"]", OTHERS),
    ("after = [\"b\", \"c\"]", "\n[process.b]\non = [\"app\"]\ncommand = [\"/bin/true\"]\nafter = [\"c\"]\n\n[process.c]\non = [\"app\"]\ncommand = [\"/bin/true\"]\n"),
    ("limits = { cpu_weight = 1 }", ""),
    ("limits = { cpu = 2 }", ""),
    ("limits = { cpu = 0.01 }", ""),
    ("limits = { memory = \"4MiB\" }", ""),
    ("limits = { processes = 1 }", ""),
    ("ready = { kind = \"none\" }", ""),
    ("ready = { kind = \"tcp\", port = 8000, timeout_ms = 100 }", ""),
    ("ready = { kind = \"http\", port = 8000, address = \"127.0.0.1\", path = \"/ready\" }", ""),
    ("ready = { kind = \"script\", command = [\"/bin/check\", \"{server}\"] }", ""),
    ("files = [{ path = \"/a\", template = \"t\" }, { path = \"/b\", content = \"{ {server}\", mode = \"0400\" }]", ""),
    ("reload_signal = \"HUP\"\nfiles = [{ path = \"/a\", content = \"c\" }]", ""),
    ("folder = \"srv\"", ""),
];

fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte];
    (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1)
}

#[test]
fn every_fault_is_told_at_its_place() {
    let mut wrong = Vec::new();
    for (name, keys, sections, mark, message) in BAD {
        let text = with(keys, sections);
        let Err(faults) = parse(&text) else {
            wrong.push(format!("{name}: was taken"));
            continue;
        };
        let (nth, mark) =
            mark.split_once(':').map_or((1, *mark), |(nth, rest)| nth.parse().map_or((1, *mark), |n| (n, rest)));
        let start = text.find("[process.guestbook]").expect("it is there");
        let byte = text[start..].match_indices(mark).nth(nth - 1).map(|(at, _)| start + at).expect("the mark is there");
        let place = line_and_column(&text, byte);
        let found = faults.positions().any(|(line, column, fault)| {
            (line, column) == place && fault.message.contains(message) && fault.severity == Severity::Error
        });
        if !found {
            wrong.push(format!("{name}: expected {place:?} `{message}`, found\n{faults}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), BAD.len(), wrong.join("\n\n"));
}

#[test]
fn their_neighbours_are_taken() {
    for (keys, sections) in GOOD_NEIGHBOURS {
        if let Err(faults) = parse(&with(keys, sections)) {
            panic!("{keys}\n{faults}");
        }
    }
}

#[test]
fn kinds_need_room_and_postgres_knows_itself_when_it_is_ready() {
    let refused = |from: &str, to: &str, why: &str| {
        let faults = parse(&edited(from, to)).expect_err(to);
        assert!(faults.to_string().contains(why), "{to}: {faults}");
    };
    let postgres = "[process.postgres]\n";
    refused(postgres, "[process.postgres]\nlimits = { memory = \"127MiB\" }\n", "give it 128MiB or more");
    refused(postgres, "[process.postgres]\nlimits = { processes = 31 }\n", "needs 32 processes");
    refused(postgres, "[process.postgres]\nready = { kind = \"none\" }\n", "leave it out");
    refused(postgres, "[process.postgres]\nfolder = \"x\"\n", "this is for `kind = \"command\"`");
    let good = "[process.postgres]\nlimits = { memory = \"128MiB\", processes = 32 }\nstop_signal = \"INT\"\n";
    parse(&edited(postgres, good)).unwrap_or_else(|faults| panic!("{faults}"));
}

#[test]
fn the_plan_has_it_in_the_order_of_start_with_placeholders_filled() {
    let keys = "after = [\"late\"]\nfolder = \"srv\"\nlimits = { cpu = 1.25, memory = \"1GiB\" }\n\
                ready = { kind = \"http\", port = 8000, path = \"/up\" }\n\
                files = [{ path = \"/etc/a\", content = \"{server} of {domain}\" }]";
    let late = "\n[process.late]\non = [\"app\"]\ncommand = [\"/bin/true\"]\nready = { kind = \"none\" }\n";
    let checked = parse(&with(keys, late)).unwrap_or_else(|faults| panic!("{faults}"));
    let plan = plan(&checked.site, "app1").expect("a plan");
    let names: Vec<&str> = plan.processes.iter().map(|process| process.name.as_str()).collect();
    assert_eq!(names, ["late", "guestbook"]);
    let [late, guestbook] = &plan.processes[..] else { panic!() };
    assert_eq!((late.ready.clone(), late.limits.is_none()), (None, true));
    assert_eq!(guestbook.after, ["late"]);
    let limits = Limits { cpu_milli: Some(1250), memory_bytes: Some(1 << 30), ..Limits::default() };
    assert_eq!(guestbook.limits, limits);
    let address = "10.0.1.21:8000".parse().expect("an address");
    let check = ReadyCheck::Http { address, path: "/up".into() };
    assert_eq!(guestbook.ready, Some(Ready { check, timeout_ms: 60_000 }));
    let ProcessKind::Command { files, folder, .. } = &guestbook.kind else { panic!() };
    assert_eq!(folder.as_deref(), Some(Path::new("srv")));
    let written = foobar_user::plan::FileContent::Text("app1 of www.foobar.com".into());
    assert_eq!((files[0].content.clone(), files[0].mode), (written, 0o640));
}
