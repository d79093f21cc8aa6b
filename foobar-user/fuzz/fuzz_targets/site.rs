//! Any text as a site file: a site, of which every server has its plan, or faults that say something; never a panic.
#![no_main]

use std::path::Path;

use foobar_user::plan::{plan, show};
use foobar_user::site::Site;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match Site::parse(Path::new("site.toml"), text) {
    Err(faults) => assert!(faults.errors() > 0 && !faults.to_string().is_empty()),
    Ok(site) => {
        for server in &site.servers {
            let plan = plan(&site, &server.name).expect("a site's server has a plan");
            assert!(!show(&plan).is_empty());
        }
    }
});
