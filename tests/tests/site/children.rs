//! Children of agents: back within a second of a kill, left alone by the death of their agent, limited beside each other.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_tests::wrk::measure;
use foobar_tests::{Bed, Silent, eventually, is_long, obtained};
use serde_json::Value;

/// Every kind of child, each with a server that runs it. PostgreSQL's deaths are a matter of who leads: see `failover`.
const CHILDREN: [(&str, &str); 5] =
    [("web1", "nginx"), ("web1", "echo"), ("app1", "guestbook"), ("monitor", "prometheus"), ("lb1", "edge")];

/// Each child is killed, again and again: another one runs within a second, and none of the others is touched.
pub(crate) fn killed(bed: &Bed) -> Result<()> {
    let rounds = if is_long() { 100 } else { 2 };
    let mut worst = Duration::ZERO;
    for round in 0..rounds {
        if round > 0 && is_long() {
            // A child that dies soon after its start is started again later and later.
            sleep(GOOD_RUN);
        }
        for (server, child) in CHILDREN {
            let before = main_pid(bed, server, child)?;
            bed.kill_process(server, child)?;
            let killed = Instant::now();
            obtained(DEADLINE, &format!("{child} of {server} runs again"), || {
                let now = process(bed, server, child)?;
                Ok((now["state"] == "running" && now["pid"].as_i64() != Some(before)).then_some(()))
            })?;
            let away = killed.elapsed();
            ensure!(away <= BACK, "{child} of {server} was away for {away:?}, round {round}");
            worst = worst.max(away);
        }
    }
    println!("{} kills, back within {} ms at the most", rounds * CHILDREN.len(), worst.as_millis());
    bed.settled(&Silent)
}

/// An agent is killed, again and again: its children run on, the next one adopts them, and nothing is left over.
pub(crate) fn orphaned(bed: &Bed) -> Result<()> {
    let before = main_pid(bed, "app1", "guestbook")?;
    for round in 0..if is_long() { 100 } else { 3 } {
        bed.agent("app1")?.kill()?;
        bed.start_agent("app1")?;
        bed.ready("app1", &Silent)?;
        let now = process(bed, "app1", "guestbook")?;
        ensure!(now["pid"].as_i64() == Some(before) && now["restarts"] == 0, "round {round}: {now}");
        ensure!(now["adopted"] == true, "round {round}: {now}");
        let pids = bed.process_ids("app1", "guestbook");
        ensure!(pids == [i32::try_from(before)?], "round {round}: {pids:?} run");
        ensure!(!is_zombie(before), "round {round}: it is a zombie");
    }
    bed.settled(&Silent)
}

/// A hog beside nginx uses up its own memory, is killed for it, counted, and nginx's answers are as quick as before.
pub(crate) fn hog(bed: &Bed) -> Result<()> {
    let good = bed.site().text()?;
    // Its shell lives on; what it starts takes all the memory that it can get, again and again.
    let hog = "[process.hog]\non = [\"web1\"]\nlimits = { memory = \"64MiB\", cpu = 0.2, cpu_weight = 1 }\n\
               command = [\"/bin/sh\", \"-c\", \"while :; do tail /dev/zero; sleep 0.05; done\"]\n";
    bed.site().replace(&format!("{good}\n{hog}"))?;
    let outcome = reload(bed).and_then(|()| beside(bed));
    bed.site().replace(&good)?;
    reload(bed)?;
    ensure!(bed.process_ids("web1", "hog").is_empty(), "the hog outlives its place in the file");
    outcome
}

fn beside(bed: &Bed) -> Result<()> {
    let kills = |bed: &Bed| -> Result<f64> {
        Ok(bed.metrics("web1")?.sum("foobar_process_oom_kills_total", &[("process", "hog")]))
    };
    eventually(DEADLINE, "the hog is killed and that is counted", || Ok(kills(bed)? >= 2.0))?;
    let nginx = bed.metrics("web1")?.sum("foobar_process_oom_kills_total", &[("process", "nginx")]);
    ensure!(nginx == 0.0, "nginx was killed for the hog's memory");
    let mut ratios = Vec::new();
    // Other work of this machine moves the tail, too: one quiet look of three is enough.
    for _ in 0..ATTEMPTS {
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            order(bed, "stop")?;
            alone.push(p99(bed)?);
            order(bed, "start")?;
            let before = kills(bed)?;
            together.push(p99(bed)?);
            ensure!(kills(bed)? > before, "the hog did not hog");
        }
        let ratio = median(&mut together) / median(&mut alone);
        println!("p99 alone {alone:.2?} ms, beside the hog {together:.2?} ms: {ratio:.2} times");
        if ratio <= MOST {
            return Ok(());
        }
        ratios.push(ratio);
    }
    anyhow::bail!("the hog moved nginx's p99 by {ratios:.2?} times, more than {MOST}")
}

fn p99(bed: &Bed) -> Result<f64> {
    let url = format!("http://{}/small.txt", bed.plain().address);
    Ok(measure(bed, "client", &url, CONNECTIONS, LOOK)?.p99_ms)
}

fn median(list: &mut [f64]) -> f64 {
    list.sort_by(f64::total_cmp);
    list[list.len() / 2]
}

fn order(bed: &Bed, what: &str) -> Result<()> {
    let output = bed.agent("web1")?.ask(&format!("process {what}"), &["hog"])?;
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn reload(bed: &Bed) -> Result<()> {
    let output = bed.agent("web1")?.ask("reload", &[])?;
    ensure!(output.status.success(), "reload: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What `foobar process list` says of one process.
fn process(bed: &Bed, server: &str, name: &str) -> Result<Value> {
    let output = bed.agent(server)?.ask("process list", &["--json", name])?;
    ensure!(output.status.success(), "process list: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    Ok(report["processes"][0].clone())
}

fn main_pid(bed: &Bed, server: &str, name: &str) -> Result<i64> {
    process(bed, server, name)?["pid"].as_i64().with_context(|| format!("{name} does not run on {server}"))
}

fn is_zombie(pid: i64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

const BACK: Duration = Duration::from_secs(1);
const GOOD_RUN: Duration = Duration::from_millis(10_500);
const DEADLINE: Duration = Duration::from_secs(30);
const MOST: f64 = 1.5;
const ATTEMPTS: usize = 3;
const ROUNDS: usize = 3;
const CONNECTIONS: u32 = 8;
const LOOK: Duration = Duration::from_secs(2);
