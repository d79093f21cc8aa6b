//! Frames through the whole packet path: no panic, no change of length, and what is not forwarded stays as it was.
#![no_main]

use foobar_common::path::{Work, process};
use foobar_common::verdict::{Reason, Verdict};
use foobar_common_fuzz::world::{frames, reset, tables};
use libfuzzer_sys::fuzz_target;

thread_local!(static TABLES: foobar_common::host::HostTables = tables());

fuzz_target!(|bytes: &[u8]| TABLES.with(|tables| {
    reset(tables);
    for frame in frames(bytes) {
        let mut after = frame.clone();
        let verdict = process(&mut after, tables, &mut Work::default());
        assert_eq!(after.len(), frame.len(), "{verdict:?}");
        // A stage that goes on finds the packet as far as the one before it has come.
        let rewritten =
            matches!(verdict, Verdict::Forward { .. } | Verdict::Pass(Reason::Neighbour) | Verdict::Stage(_));
        assert!(rewritten || after == frame, "{verdict:?}");
    }
}));
