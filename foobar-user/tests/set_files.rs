//! Files of named sets: what is taken, what is refused and told by line, and what a check says of many of them.

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{GOOD, edited};
use foobar_user::plan::plan;
use foobar_user::site::sets::{self, BAD_LINES_MAX, FileError, read_file};
use foobar_user::site::{Checked, Extent};
use tempfile::{TempDir, tempdir};

fn folder() -> TempDir {
    tempdir().expect("a folder")
}

/// What a file with this content is taken for.
fn read(content: impl AsRef<[u8]>) -> Result<Vec<String>, FileError> {
    let folder = folder();
    let path = folder.path().join("set.txt");
    fs::write(&path, content).expect("written");
    read_file(&path).map(|prefixes| prefixes.iter().map(ToString::to_string).collect())
}

#[test]
fn a_prefix_or_address_a_line_is_taken() {
    let text =
        "# all of them\n\n192.0.2.0/24\n  192.0.2.7  # twice is fine\n192.0.2.7\r\n2001:db8::/32\n::1\n#\n0.0.0.0/0";
    let expected = ["192.0.2.0/24", "192.0.2.7/32", "192.0.2.7/32", "2001:db8::/32", "::1/128", "0.0.0.0/0"];
    assert_eq!(read(text).expect("taken"), expected);
    assert_eq!(read("").expect("taken"), [""; 0]);
    assert_eq!(read("# nobody yet").expect("taken"), [""; 0]);
}

#[test]
fn every_bad_line_is_told_and_nothing_is_taken() {
    let long = "1".repeat(600);
    let text = [
        b"192.0.2.0/24\nexample.com\n192.0.2.1/24\n192.0.2.0/33\n\xff\xfe\n".as_slice(),
        long.as_bytes(),
        b"\n10.0.0.0/8 10.1.0.0/16\n",
    ]
    .concat();
    let Err(FileError::Lines { first, more, .. }) = read(&text) else { panic!("taken") };
    let lines: Vec<usize> = first.iter().map(|bad| bad.line).collect();
    assert_eq!((lines.as_slice(), more), (&[2, 3, 4, 5, 6, 7][..], 0));
    for (bad, why) in first.iter().zip([
        "`example.com` is no prefix",
        "write `192.0.2.0/24`",
        "is no prefix",
        "not UTF-8",
        "longer than 512",
        "is no prefix",
    ]) {
        assert!(bad.why.contains(why), "{bad:?}");
    }
}

#[test]
fn many_bad_lines_are_counted() {
    let error = read("x\n".repeat(BAD_LINES_MAX + 7)).expect_err("refused");
    let text = error.to_string();
    assert_eq!(text.matches("set.txt:").count(), BAD_LINES_MAX);
    assert!(text.contains("set.txt:20: `x` is no prefix") && text.ends_with("\n  and 7 more"), "{text}");
}

#[test]
fn what_is_no_set_file_says_so() {
    let folder = folder();
    let missing = read_file(&folder.path().join("none.txt")).expect_err("refused");
    assert!(missing.to_string().contains("is not on this machine"), "{missing}");
    let of_folder = read_file(folder.path()).expect_err("refused");
    assert!(of_folder.to_string().contains("is no file"), "{of_folder}");
    assert!(read_file(Path::new("/dev/zero")).is_err());
}

#[test]
fn a_million_prefixes_are_taken_quickly_and_one_more_is_refused() {
    let line = |n: u32| format!("{}\n", std::net::Ipv4Addr::from_bits(0x0b00_0000 + n));
    let mut text: String = (0..1_000_000).map(line).collect();
    let start = Instant::now();
    assert_eq!(read(&text).expect("taken").len(), 1_000_000);
    // Without optimisation and beside other tests; seconds would mean that something is quadratic.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    text.push_str("192.0.2.1\n");
    assert!(matches!(read(&text), Err(FileError::TooMany { .. })));
}

/// The good site with these sets, all of them denied on the balancer, and what its files are checked to be.
fn checked(folder: &TempDir, sets: &[(&str, &str)], extent: Extent<'_>) -> String {
    let mut text = GOOD.to_owned();
    for (name, body) in sets {
        let rule =
            format!("[[rule]]\nname = \"no-{name}\"\non = [\"lb1\"]\nfrom = \"set:{name}\"\naction = \"deny\"\n");
        text.push_str(&format!("\n[set.{name}]\n{body}\n{rule}"));
    }
    let checked = Checked::parse(&folder.path().join("site.toml"), &text).unwrap_or_else(|faults| panic!("{faults}"));
    let about_sets = |line: &&str| line.contains("set") && line.contains("site.toml:") || line.contains(".txt");
    let faults = checked.check_files(extent).to_string();
    faults.lines().filter(about_sets).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_check_reads_the_sets_of_its_server() {
    let folder = folder();
    fs::write(folder.path().join("bad.txt"), "192.0.2.0/24\nnobody\n").expect("written");
    let sets = [("bad", "file = \"bad.txt\""), ("gone", "file = \"gone.txt\"")];
    for extent in [Extent::Site, Extent::Server("lb1")] {
        let told = checked(&folder, &sets, extent);
        assert!(
            told.contains("bad.txt:2: `nobody` is no prefix") && told.contains("gone.txt is not on this machine"),
            "{told}"
        );
        assert!(!told.contains("warning"), "{told}");
    }
    assert_eq!(checked(&folder, &sets, Extent::Server("web1")), "");
}

#[test]
fn a_check_warns_of_empty_and_overlapping_sets() {
    let folder = folder();
    for (name, content) in [("empty", "# soon\n"), ("wide", "10.0.0.0/8\n10.1.0.0/16\n"), ("inside", "10.2.0.0/16\n")] {
        fs::write(folder.path().join(format!("{name}.txt")), content).expect("written");
    }
    let sets = [
        ("empty", "file = \"empty.txt\""),
        ("wide", "file = \"wide.txt\""),
        ("inside", "prefixes = \"172.16.0.0/12\"\nfile = \"inside.txt\""),
        ("inline", "prefixes = [\"172.16.7.0/24\"]"),
    ];
    let told = checked(&folder, &sets, Extent::Site);
    for part in [
        "warning: the set `empty` is empty",
        "warning: 1 prefix of the set `wide` lies in wider ones and changes nothing, such as 10.1.0.0/16 in 10.0.0.0/8",
        "the sets `wide` and `inside` overlap, such as 10.0.0.0/8 of the one and 10.2.0.0/16 of the other",
        "the sets `inside` and `inline` overlap, such as 172.16.0.0/12 of the one and 172.16.7.0/24 of the other",
    ] {
        assert!(told.contains(part), "{part}:\n{told}");
    }
    assert_eq!(told.matches("warning").count(), 4, "{told}");
}

#[test]
fn a_plan_reads_what_its_sets_hold() {
    let folder = folder();
    fs::write(folder.path().join("more.txt"), "192.0.2.7\n").expect("written");
    let set = "[set.x]\nprefixes = \"198.51.100.0/24\"\nfile = \"more.txt\"\n[[rule]]";
    let text = edited("[[rule]]", set).replacen("from = [\"198.51.100.0/24\"]", "from = \"set:x\"", 1);
    let site = Checked::parse(&folder.path().join("site.toml"), &text).unwrap_or_else(|faults| panic!("{faults}")).site;
    let plan = plan(&site, "lb1").expect("a plan");
    let texts = |prefixes: Vec<ipnet::IpNet>| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(plan.sets[0].read().expect("read")), ["198.51.100.0/24", "192.0.2.7/32"]);
    assert_eq!(texts(sets::read(&site.sets[0]).expect("read")), ["198.51.100.0/24", "192.0.2.7/32"]);
}
