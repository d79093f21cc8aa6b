//! The compiled rules answer what a walk over the rules answers, and the same rules count.
#![no_main]

use arbitrary::Unstructured;
use foobar_common::host::HostTables;
use foobar_common::rules::compile::{Surroundings, compile};
use foobar_common_fuzz::rules::{INTERFACES, judged, rules, seen, shadow, walked};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = Unstructured::new(bytes);
    let Ok(mut rules) = rules(&mut bytes) else { return };
    let Ok(()) = shadow(&mut bytes, &mut rules) else { return };
    let interfaces: Vec<_> = INTERFACES.iter().map(|name| (*name).to_owned()).zip(1..).collect();
    let surroundings = Surroundings { interfaces: &interfaces, ..Surroundings::default() };
    let mut tables = HostTables::new(compile(&rules, &surroundings).expect("few rules"));
    while let (false, Ok(seen)) = (bytes.is_empty(), seen(&mut bytes)) {
        tables.interface = seen.interface;
        tables.rule_counters.borrow_mut().clear();
        let verdict = judged(&tables, &seen).map(drop);
        let mut counted: Vec<u32> = tables.rule_counters.borrow().keys().copied().collect();
        counted.sort_unstable();
        assert_eq!((counted, verdict), walked(&rules, &seen), "{seen:?}");
    }
});
