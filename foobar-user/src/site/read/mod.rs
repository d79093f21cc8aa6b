//! The site file's text turned into a site, section by section; nothing here compares one section with another.

mod balance;
mod database;
mod eject;
mod etcd;
pub(super) mod files;
mod limit;
mod limits;
mod process;
mod protocol;
mod reads;
mod ready;
mod rule;
mod server;
mod service;
mod set;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::at::{At, Span};
use super::fault::Source;
use foobar_common::abi::DEFAULT_FLOWS;

use super::model::Site;
use super::section::{Collector, Section};
use super::text;

/// Port of `/metrics` where the file names none.
const METRICS_PORT: u16 = 9900;
/// Half-open connections of one listener that are a flood, where the file does not say: ten thousand new connections a
/// second at a round trip of a tenth of a second.
const SYN_COOKIES: u32 = 1000;
/// No queue of a listener is longer (`somaxconn` is a number of 16 bits in effect).
const SYN_COOKIES_MAX: u64 = 65_535;
/// Established flows that a balancer may be told to hold: each takes some 250 bytes in both families, of memory that is taken at
/// once.
const FLOWS_RANGE: RangeInclusive<u64> = 1024..=16_777_216;
/// Largest site file, so that a mistaken path cannot fill the memory.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;

/// What sections are read with.
pub(super) struct Reader<'a> {
    /// The file: for lines.
    pub(super) source: &'a Source,
    /// The folder that relative paths are relative to.
    pub(super) base: PathBuf,
}

impl Reader<'_> {
    /// A path of the file, relative to it.
    fn path(&self, section: &mut Section<'_>, key: &'static str) -> Option<At<PathBuf>> {
        section.parse(key, "a path", |text| {
            if text.is_empty() || text.contains('\0') {
                return Err("an empty path leads nowhere; write a file's or folder's path".to_owned());
            }
            Ok(self.base.join(text))
        })
    }
}

/// What was read, and whether each kind of section was read without a fault.
pub(super) struct Draft {
    /// The site, without whatever could not be read.
    pub(super) site: Site,
    /// `[site]` and every `[[server]]` were read.
    pub(super) servers_whole: bool,
    /// Every `[service]` was read.
    pub(super) services_whole: bool,
    /// Every `[process]` was read.
    pub(super) processes_whole: bool,
    /// Every `[set]` was read.
    pub(super) sets_whole: bool,
    /// Every `[[rule]]` was read.
    pub(super) rules_whole: bool,
}

/// Reads a whole file; faults go to the collector.
pub(super) fn read(source: &Source, faults: &Collector) -> Option<Draft> {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    for error in &errors {
        let span = error.span().map_or_else(Span::default, Span::from);
        faults.error(span, format!("this is not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        // What the parser guessed after a syntax error would only raise faults that are not there.
        return None;
    }
    let base = source.path.parent().unwrap_or(Path::new("")).to_owned();
    let reader = Reader { source, base };
    let mut root = Section::new("the site file".to_owned(), Span::default(), document.get_ref(), faults);

    let before = faults.len();
    let site = site(&reader, &mut root);
    let mut servers: Vec<_> = root.tables("server").into_iter().filter_map(server::read).collect();
    if servers.is_empty() && faults.len() == before {
        faults.error(Span::default(), "the site has no server; add a `[[server]]`");
    }
    servers.sort_by_key(|server| server.name.span.start);
    let servers_whole = faults.len() == before;

    let before = faults.len();
    let services =
        root.named("service").into_iter().filter_map(|(name, table)| service::read(&reader, name, table)).collect();
    let services_whole = faults.len() == before;

    let database = root.table("database", "[database]").and_then(|table| database::read(&reader, table));
    let before = faults.len();
    let processes =
        root.named("process").into_iter().filter_map(|(name, table)| process::read(&reader, name, table)).collect();
    let processes_whole = faults.len() == before;
    let before = faults.len();
    let sets = root.named("set").into_iter().filter_map(|(name, table)| set::read(&reader, name, table)).collect();
    let sets_whole = faults.len() == before;
    let before = faults.len();
    let rules = root.tables("rule").into_iter().filter_map(|table| rule::read(&reader, table)).collect();
    let rules_whole = faults.len() == before;
    root.finish();
    let Head { domain, admin, pki, metrics_port, syn_cookies, flows } = site?;
    let site = Site {
        domain,
        admin,
        pki,
        metrics_port,
        syn_cookies,
        flows,
        servers,
        services,
        database,
        processes,
        sets,
        rules,
    };
    Some(Draft { site, servers_whole, services_whole, processes_whole, sets_whole, rules_whole })
}

/// `[site]`.
struct Head {
    domain: At<String>,
    admin: Vec<At<ipnet::IpNet>>,
    pki: At<PathBuf>,
    metrics_port: At<u16>,
    syn_cookies: u32,
    flows: u32,
}

/// `[site]`. A fault in it leaves stand-ins, so that the other sections are still compared.
fn site(reader: &Reader<'_>, root: &mut Section<'_>) -> Option<Head> {
    let whole = root.has("site");
    let Some(mut section) = root.table("site", "[site]") else {
        if !whole {
            root.faults.error(root.span, "the site file lacks `[site]`; write `[site]` with `domain = \"…\"`");
        }
        return None;
    };
    let domain = section.parse("domain", "a string", text::domain);
    let domain = section.need("domain", domain, "domain = \"www.foobar.com\"");
    let admin = section.list("admin", "a list of prefixes", text::prefix);
    let admin = section.need("admin", admin, "admin = [\"10.0.1.41/32\"]");
    if let Some(admin) = &admin
        && admin.is_empty()
    {
        section.faults.warning(admin.span, "`admin` is empty: no failsafe keeps ssh open; name your own prefix");
    }
    let pki = reader.path(&mut section, "pki").unwrap_or_else(|| At::new(reader.base.join("pki"), section.span));
    let metrics_port = section.port("metrics_port", 1).unwrap_or(At { value: METRICS_PORT, span: section.span });
    let syn_cookies = section.integer("syn_cookies", 0..=SYN_COOKIES_MAX).map_or(SYN_COOKIES, |at| at.value as u32);
    let flows = section.integer("flows", FLOWS_RANGE).map_or(DEFAULT_FLOWS, |at| at.value as u32);
    let span = section.span;
    section.finish();
    let domain = domain.unwrap_or_else(|| At::new("invalid".to_owned(), span));
    Some(Head {
        domain,
        admin: admin.map(|admin| admin.value).unwrap_or_default(),
        pki,
        metrics_port,
        syn_cookies,
        flows,
    })
}
