//! The reader of the kernel's ring of events: names what the kernel tells by number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use foobar_common::abi;
use foobar_common::address::Address;
use foobar_common::verdict::Reason;
use nix::net::if_::if_indextoname;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::error;

use super::events::{Event, Events, Told};
use super::server::{Shared, lock};
use crate::datapath::{self, Datapath};
use crate::sets::Now;

/// Reads until the agent ends; also while nobody watches, so that the ring never holds what is old.
pub(super) async fn read(ring: datapath::events::Events, events: Events, datapath: Shared<Datapath>) {
    if let Err(error) = follow(ring, &events, &datapath).await {
        error!("events of the packet path are not told any more: {error:#}");
    }
}

async fn follow(ring: datapath::events::Events, events: &Events, datapath: &Shared<Datapath>) -> Result<()> {
    let mut lost = ring.lost()?;
    // SAFETY: the ring has opened its descriptor for itself, and keeps it open and the same until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
    let mut ring = registered.context("cannot wait for the ring of events")?;
    loop {
        let mut ready = ring.readable_mut().await?;
        let ring = ready.get_inner_mut();
        while let Some(event) = ring.take() {
            if events.are_wanted() {
                let rule = lock(datapath).slots().rules.name(event.rule).map(str::to_owned);
                events.tell(Told::Event(Box::new(named(&event, rule, Now::read()))));
            }
        }
        let now = ring.lost()?;
        if now > lost {
            events.tell(Told::LostByKernel(now - lost));
            lost = now;
        }
        ready.clear_ready();
    }
}

fn named(event: &abi::Event, rule: Option<String>, now: Now) -> Event {
    let reason = Reason::numbered(event.reason);
    let age_ms = now.monotonic_ns.saturating_sub(event.time_ns) / 1_000_000;
    let address = |words: [u32; 4]| match event.family {
        4 => Some(IpAddr::V4(Ipv4Addr::from(Address([words[0]]).bytes()))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(Address(words).bytes()))),
        _ => None,
    };
    let verdict = if event.shadow == 0 { reason.map_or("?", Reason::verdict) } else { "would drop" };
    Event {
        time_ms: now.wall_ms.saturating_sub(age_ms),
        verdict: verdict.to_owned(),
        rule,
        reason: reason.map_or("?", Reason::label).to_owned(),
        interface: interface(event.interface),
        protocol: (event.family != 0).then_some(event.protocol),
        source: address(event.source),
        source_port: event.source_port.host(),
        destination: address(event.destination),
        destination_port: event.destination_port.host(),
        detail: event.detail,
        length: event.length,
    }
}

/// The interface's name, or its index when it has gone.
fn interface(index: u32) -> String {
    let name = if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("#{index}"))
}

#[cfg(test)]
mod tests {
    use foobar_common::address::{Be16, words};

    use super::*;

    const NOW: Now = Now { monotonic_ns: 10_000_000_000, wall_ms: 1_700_000_000_000 };

    #[test]
    fn what_the_kernel_tells_is_named() {
        let told = abi::Event {
            time_ns: 9_000_000_000,
            rule: 3,
            reason: Reason::RuleDeny as u32,
            interface: 1,
            length: 54,
            source: words("203.0.113.9".parse().unwrap()),
            destination: words("10.0.1.41".parse().unwrap()),
            source_port: Be16::new(40_000),
            destination_port: Be16::new(22),
            protocol: 6,
            family: 4,
            detail: 2,
            ..abi::Event::default()
        };
        let event = named(&told, Some("no-ssh".to_owned()), NOW);
        assert_eq!(
            (event.time_ms, event.verdict.as_str(), event.reason.as_str()),
            (NOW.wall_ms - 1000, "drop", "rule")
        );
        assert_eq!((event.source, event.source_port), ("203.0.113.9".parse().ok(), 40_000));
        assert_eq!((event.interface.as_str(), event.protocol), ("lo", Some(6)));
        let shadow = named(&abi::Event { shadow: 1, family: 0, interface: u32::MAX, ..told }, None, NOW);
        assert_eq!((shadow.verdict.as_str(), shadow.source, shadow.protocol), ("would drop", None, None));
        assert_eq!(shadow.interface, format!("#{}", u32::MAX));
    }
}
