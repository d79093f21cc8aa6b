//! The compiled rules answer what the linear matcher answers.
#![no_main]

use arbitrary::Unstructured;
use foobar_common::firewall::Allowed;
use foobar_common::host::HostTables;
use foobar_common::rules::Action;
use foobar_common::rules::compile::compile;
use foobar_common::rules::linear::first_match;
use foobar_common::verdict::Reason;
use foobar_common_fuzz::rules::{fields, judged, rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let Ok(rules) = rules(&mut bytes) else { return };
    let tables = HostTables::new(compile(&rules).expect("few rules"));
    while let (false, Ok(fields)) = (bytes.is_empty(), fields(&mut bytes)) {
        let expected = match first_match(&rules, &fields) {
            Some(rule) if rules[rule].action == Action::Allow => Ok(Allowed::Rule(rule as u32)),
            Some(_) => Err(Reason::RuleDeny),
            None => Err(Reason::NoRule),
        };
        assert_eq!(judged(&tables, &fields), expected, "{fields:?}");
    }
});
