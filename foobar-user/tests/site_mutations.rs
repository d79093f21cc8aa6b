//! Whatever a site file holds, reading it ends in a site or in faults, never in a panic, and a site always has its plans.

mod common;

use std::path::Path;

use common::{GOOD, edited};
use foobar_user::plan::{RULES_MAX, plan, show};
use foobar_user::site::Site;
use proptest::prelude::{Strategy, any, prop};
use proptest::{prop_assert, proptest};

fn judge(text: &str) -> Result<(), String> {
    match Site::parse(Path::new("site.toml"), text) {
        Err(faults) if faults.errors() == 0 || faults.to_string().is_empty() => {
            Err("refused without a word".to_owned())
        }
        Err(_) => Ok(()),
        Ok(site) => site.servers.iter().try_for_each(|server| {
            let plan = plan(&site, &server.name).map_err(|error| error.to_string())?;
            let _ = show(&plan);
            (plan.rules.len() <= RULES_MAX).then_some(()).ok_or_else(|| "too many rules".to_owned())
        }),
    }
}

/// The good file with a firewall of its own, so that every key is cut somewhere.
fn whole() -> String {
    format!("{GOOD}{}", include_str!("common/firewall.toml"))
}

/// Characters and words that mean something here.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "",
        "\"",
        "[",
        "]",
        "{",
        "}",
        "=",
        "\n",
        "#",
        "'",
        ".",
        "é",
        "\u{1f600}",
        "0",
        "-1",
        "any",
        "::",
        "1e9",
        "{x}",
        "\t",
    ];
    proptest::prop_oneof![
        prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        any::<char>().prop_map(String::from)
    ]
}

proptest! {
    #[test]
    fn replaced_pieces_never_panic(cuts in prop::collection::vec((0..whole().len(), 0..12_usize, piece()), 1..6)) {
        let mut text = whole();
        for (start, length, piece) in cuts {
            let start = text.floor_char_boundary(start.min(text.len()));
            let end = text.ceil_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end, &piece);
        }
        let judged = judge(&text);
        prop_assert!(judged.is_ok(), "{judged:?}");
    }

    #[test]
    fn shuffled_lines_never_panic(order in prop::collection::vec(0..whole().lines().count(), 0..60)) {
        let whole = whole();
        let lines: Vec<&str> = whole.lines().collect();
        let text: String = order.iter().map(|index| format!("{}\n", lines[*index])).collect();
        prop_assert!(judge(&text).is_ok());
    }
}

#[test]
fn every_line_can_be_missing() {
    let whole = whole();
    for skipped in 0..whole.lines().count() {
        let kept = whole.lines().enumerate().filter(|(index, _)| *index != skipped);
        let text: String = kept.map(|(_, line)| format!("{line}\n")).collect();
        assert_eq!(judge(&text), Ok(()), "without line {}", skipped + 1);
    }
    assert_eq!(judge(""), Ok(()));
    assert_eq!(judge(&edited("[site]", "\u{feff}[site]")), Ok(()));
}
