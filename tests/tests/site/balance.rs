//! Round robin is exact: what the servers say of themselves, and what the kernel's counters say.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use foobar_tests::Bed;
use foobar_tests::client::{Connection, Target};

/// 300 new connections over NAT: 150 to each web server.
pub(crate) fn exact_over_nat(bed: &Bed) -> Result<()> {
    exact(bed, &bed.plain(), 300)
}

/// The same over IPv6, with fewer.
pub(crate) fn exact_over_ipv6(bed: &Bed) -> Result<()> {
    exact(bed, &bed.plain6(), 20)
}

fn exact(bed: &Bed, target: &Target, connections: u64) -> Result<()> {
    let before = counted(bed)?;
    let served = bed.host("client")?.block_on(|| async {
        let mut served: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..connections {
            let page = Connection::open(target).await?.get("/small.txt").await?;
            ensure!(page.status == 200, "{}", page.status);
            *served.entry(page.header("x-served-by").to_owned()).or_default() += 1;
        }
        Ok(served)
    })??;
    let half = connections / 2;
    let expected = BTreeMap::from([("web1".to_owned(), half), ("web2".to_owned(), half)]);
    ensure!(served == expected, "answered by {served:?}");
    let after = counted(bed)?;
    for (server, count) in expected {
        let counted = after.get(&server).unwrap_or(&0.0) - before.get(&server).unwrap_or(&0.0);
        ensure!(counted == count as f64, "{server}: the kernel counted {counted} new connections, not {count}");
    }
    Ok(())
}

fn counted(bed: &Bed) -> Result<BTreeMap<String, f64>> {
    Ok(bed.metrics("lb1")?.by("foobar_backend_connections_total", &[("service", "plain")], "backend"))
}
