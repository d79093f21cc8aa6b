//! Backends under an operator's hand: drained, weighed, disabled; and flows looked at and ended.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::client::Connection;
use foobar_tests::{Bed, Silent, eventually};
use serde_json::Value;

/// A drained backend is given nothing new, keeps what it has, stays drained over its agent's death, and comes back.
pub(crate) fn drained(bed: &Bed) -> Result<()> {
    let outcome = drain(bed);
    order(bed, "enable", &["web1"])?;
    outcome?;
    shared(bed, 20, [10, 10])
}

fn drain(bed: &Bed) -> Result<()> {
    bed.host("client")?.block_on(|| async {
        let mut held = held_by(bed, "web1").await?;
        let said = order(bed, "drain", &["web1"])?;
        ensure!(said.contains("web1 is draining"), "{said}");
        shared(bed, 10, [0, 10])?;
        ensure!(served_by(&mut held).await? == "web1", "a held connection was moved");
        let flows = flows(bed, "count", &["--service", "plain", "--backend", "web1"])?;
        ensure!(flows["flows"].as_u64().is_some_and(|flows| flows >= 1), "{flows}");
        let refusal = ask(bed, "backend drain", &["web1", "--service", "plain", "--wait", "1s"])?;
        ensure!(!refusal.status.success(), "a wait for a connection that is held has ended");
        let told = String::from_utf8_lossy(&refusal.stderr).into_owned();
        ensure!(told.contains("still has") && told.contains("stays drained"), "{told}");

        bed.agent("lb1")?.kill()?;
        bed.start_agent("lb1")?;
        bed.ready("lb1", &Silent)?;
        bed.settled(&Silent)?;
        shared(bed, 4, [0, 4])?;
        ensure!(served_by(&mut held).await? == "web1", "the held connection has not survived the agent");
        Ok(())
    })??;
    // The client's connections have ended with their runtime.
    let said = order(bed, "drain", &["web1", "--service", "plain", "--wait", "30s"])?;
    ensure!(said.contains("no flow any more"), "{said}");
    Ok(())
}

/// A backend that leaves by the site file keeps its connections to their end, and comes back to its counters.
pub(crate) fn left(bed: &Bed) -> Result<()> {
    let good = bed.site().text()?;
    let before = bed.metrics("lb1")?.by("foobar_backend_connections_total", PLAIN, "backend")["web1"];
    let outcome = leave(bed, &good);
    bed.site().replace(&good)?;
    let output = ask(bed, "reload", &[])?;
    outcome?;
    ensure!(output.status.success(), "reload: {}", String::from_utf8_lossy(&output.stderr));
    bed.settled(&Silent)?;
    shared(bed, 20, [10, 10])?;
    let after = bed.metrics("lb1")?.by("foobar_backend_connections_total", PLAIN, "backend")["web1"];
    ensure!(after > before, "web1's counter has begun anew: {after}, {before} before");
    Ok(())
}

fn leave(bed: &Bed, good: &str) -> Result<()> {
    let start = good.find("[[server]]\nname = \"web1\"").context("web1's section")?;
    let end = start + 1 + good[start + 1..].find("[[server]]").context("the next section")?;
    bed.host("client")?.block_on(|| async {
        let mut held = held_by(bed, "web1").await?;
        bed.site().replace(&format!("{}{}", &good[..start], &good[end..]))?;
        let output = ask(bed, "reload", &[])?;
        ensure!(output.status.success(), "reload: {}", String::from_utf8_lossy(&output.stderr));
        shared(bed, 4, [0, 4])?;
        ensure!(served_by(&mut held).await? == "web1", "a held connection has not survived its backend's leaving");
        let flows = flows(bed, "count", &["--client", "203.0.113.0/24"])?;
        let counted = flows["counts"].as_array().context("counts")?;
        ensure!(counted.iter().any(|count| count["backend"] == "web1"), "the flow is not told any more: {flows}");
        let left = self::flows(bed, "count", &["--backend", "web1"])?;
        ensure!(left["flows"].as_u64().is_some_and(|flows| flows >= 1), "who has left cannot be asked for: {left}");
        let refusal = ask(bed, "backend drain", &["web1", "--service", "plain", "--wait", "1s"])?;
        let told = String::from_utf8_lossy(&refusal.stderr).into_owned();
        ensure!(
            !refusal.status.success() && told.contains("still has"),
            "a flow of who has left is not waited for: {told}"
        );
        Ok(())
    })??;
    // The client's connections have ended with their runtime.
    let said = order(bed, "drain", &["web1", "--service", "plain", "--wait", "30s"])?;
    ensure!(said.contains("no flow any more"), "{said}");
    Ok(())
}

/// Weights are exact over a cycle, and the site file's come back.
pub(crate) fn weighed(bed: &Bed) -> Result<()> {
    order(bed, "weight", &["web1", "3", "--service", "plain"])?;
    let outcome = shared(bed, 40, [30, 10]);
    order(bed, "weight", &["web1", "--service", "plain"])?;
    outcome?;
    shared(bed, 20, [10, 10])
}

/// Who takes the last weight away is warned, and the site file's weights come back.
pub(crate) fn weightless(bed: &Bed) -> Result<()> {
    let weigh = |server: &str, weight: &[&str]| -> Result<String> {
        let output = ask(bed, "backend weight", &[&[server], weight, &["--service", "plain"]].concat())?;
        ensure!(output.status.success(), "foobar backend weight {server} fails");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let outcome = weigh("web1", &["0"]).and_then(|first| Ok((first, weigh("web2", &["0"])?)));
    let plain = bed.plain();
    let refused = bed.host("client")?.block_on(async || tokio::time::timeout(CUT, Connection::open(&plain)).await);
    weigh("web1", &[])?;
    weigh("web2", &[])?;
    let (first, last) = outcome?;
    ensure!(first.is_empty(), "one of two is left, and yet: {first}");
    ensure!(last.contains("service plain gives connections to nobody now"), "no warning: {last}");
    ensure!(refused?.is_err(), "somebody has answered with no weight anywhere");
    shared(bed, 20, [10, 10])
}

/// A disabled backend's connections are cut; others are not touched.
pub(crate) fn disabled(bed: &Bed) -> Result<()> {
    let outcome = bed.host("client")?.block_on(|| async {
        let (mut first, mut second) = (held_by(bed, "web1").await?, held_by(bed, "web2").await?);
        order(bed, "disable", &["web1", "--service", "plain"])?;
        let cut = tokio::time::timeout(CUT, first.get("/small.txt")).await;
        ensure!(cut.map_or(true, |answer| answer.is_err()), "a disabled backend still answers");
        ensure!(served_by(&mut second).await? == "web2", "the other's connection was touched");
        shared(bed, 4, [0, 4])
    })?;
    order(bed, "enable", &["web1"])?;
    outcome
}

/// One flow is found by its client's port and ended, its neighbour goes on.
pub(crate) fn flows_end(bed: &Bed) -> Result<()> {
    bed.host("client")?.block_on(|| async {
        let mut stays = held_by(bed, "web2").await?;
        let known: Vec<String> = clients(bed)?;
        let mut ends = held_by(bed, "web1").await?;
        let client = clients(bed)?.into_iter().find(|client| !known.contains(client)).context("no new flow")?;
        let ended = flows(bed, "kill", &["--client", &client])?;
        ensure!(ended["ended"] == 1, "{ended}");
        let cut = tokio::time::timeout(CUT, ends.get("/small.txt")).await;
        ensure!(cut.map_or(true, |answer| answer.is_err()), "an ended flow goes on");
        ensure!(served_by(&mut stays).await? == "web2", "another flow was ended, too");
        let refused = ask(bed, "flows kill", &[])?;
        ensure!(!refused.status.success(), "every flow may be ended by one slip");
        Ok(())
    })?
}

/// A set that denies a client cuts its known flow, too, and lets it go on when the entry goes.
pub(crate) fn sets_reach_known_flows(bed: &Bed) -> Result<()> {
    let good = bed.site().text()?;
    let rule = "[set.enemies]\nprefixes = [\"192.0.2.0/24\"]\n\n[[rule]]\nname = \"enemies\"\non = [\"lb1\"]\nfrom = \
                [\"set:enemies\"]\naction = \"deny\"\n";
    bed.site().replace(&format!("{good}\n{rule}"))?;
    let reloaded = ask(bed, "reload", &[])?;
    let outcome = bed.host("client")?.block_on(|| async {
        ensure!(reloaded.status.success(), "reload: {}", String::from_utf8_lossy(&reloaded.stderr));
        let mut held = held_by(bed, "web1").await?;
        let added = ask(bed, "set add", &["enemies", "203.0.113.50/32"])?;
        ensure!(added.status.success(), "set add: {}", String::from_utf8_lossy(&added.stderr));
        let cut = tokio::time::timeout(CUT, held.get("/small.txt")).await;
        ensure!(cut.is_err(), "a flow of before goes on through a set that denies it");
        let taken = ask(bed, "set del", &["enemies", "203.0.113.50/32"])?;
        ensure!(taken.status.success(), "set del: {}", String::from_utf8_lossy(&taken.stderr));
        ensure!(bed.get(&bed.plain(), "/small.txt")?.status == 200, "the client is still denied");
        Ok(())
    });
    bed.site().replace(&good)?;
    let output = ask(bed, "reload", &[])?;
    ensure!(output.status.success(), "reload: {}", String::from_utf8_lossy(&output.stderr));
    outcome?
}

/// Established flows to web1 and web2 by their clients.
fn clients(bed: &Bed) -> Result<Vec<String>> {
    let report = flows(bed, "list", &["--service", "plain", "--limit", "10000"])?;
    let list = report["list"].as_array().context("a list")?;
    let open = list.iter().filter(|flow| flow["state"] == "established");
    Ok(open.filter_map(|flow| flow["client"].as_str().map(str::to_owned)).collect())
}

/// A connection that is answered by this server, and stays open.
async fn held_by(bed: &Bed, server: &str) -> Result<Connection> {
    for _ in 0..4 {
        let mut connection = Connection::open(&bed.plain()).await?;
        if served_by(&mut connection).await? == server {
            return Ok(connection);
        }
    }
    anyhow::bail!("{server} is given no connection")
}

async fn served_by(connection: &mut Connection) -> Result<String> {
    Ok(connection.get("/small.txt").await?.header("x-served-by").to_owned())
}

/// So many new connections are shared by web1 and web2 like this.
fn shared(bed: &Bed, connections: usize, expected: [usize; 2]) -> Result<()> {
    eventually(DEADLINE, "the members are as they should be", || {
        let services = ask(bed, "services", &["--json"])?;
        let report: Value = serde_json::from_slice(&services.stdout)?;
        let plain = report["services"].as_array().context("services")?.iter().find(|s| s["name"] == "plain");
        let backends = plain.context("plain")?["backends"].as_array().context("backends")?.iter();
        let member = |server: &str| backends.clone().any(|b| b["server"] == server && b["member"] == true);
        Ok(member("web1") == (expected[0] > 0) && member("web2") == (expected[1] > 0))
    })?;
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..connections {
        let page = bed.get(&bed.plain(), "/small.txt")?;
        *served.entry(page.header("x-served-by").to_owned()).or_default() += 1;
    }
    let found = ["web1", "web2"].map(|server| served.get(server).copied().unwrap_or(0));
    ensure!(found == expected, "{connections} connections were shared as {served:?}, not {expected:?}");
    Ok(())
}

fn order(bed: &Bed, what: &str, arguments: &[&str]) -> Result<String> {
    let output = ask(bed, &format!("backend {what}"), arguments)?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "foobar backend {what}: {told}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn flows(bed: &Bed, what: &str, arguments: &[&str]) -> Result<Value> {
    let output = ask(bed, &format!("flows {what}"), &[arguments, &["--json"]].concat())?;
    ensure!(output.status.success(), "foobar flows {what}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("foobar flows wrote no JSON")
}

fn ask(bed: &Bed, what: &str, arguments: &[&str]) -> Result<std::process::Output> {
    bed.agent("lb1")?.ask(what, arguments)
}

const PLAIN: &[(&str, &str)] = &[("service", "plain")];
const CUT: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(10);
