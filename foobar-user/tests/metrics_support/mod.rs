//! What the tests of metrics share: a registry with everything in it, conditions with deadlines, promtool.

#![expect(dead_code, reason = "each test binary uses its own part of this module")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use foobar_user::metrics::{
    Reloads, Source, Sources, certificates, database, datapath, health, names, processes, text,
};

/// Time until a condition that is to come must have come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process that ends with its guard.
pub(crate) struct Process {
    /// The process.
    pub(crate) child: Child,
    /// The signal that asks it to end its children and itself.
    pub(crate) stop: Signal,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = nix::sys::signal::kill(Pid::from_raw(self.child.id().cast_signed()), self.stop);
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A path in the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Whether promtool is there; without it the test says so, and fails in CI.
pub(crate) fn promtool_present() -> bool {
    let present = Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success());
    if !present {
        assert!(std::env::var_os("CI").is_none(), "promtool is missing: apt-get install prometheus");
        eprintln!("SKIPPED: promtool is missing: apt-get install prometheus");
    }
    present
}

/// Runs promtool with `input`.
pub(crate) fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("promtool");
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Panics with what promtool said when it found a fault.
pub(crate) fn assert_clean(what: &str, output: &Output) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{what}:\n{}", String::from_utf8_lossy(&said));
}

/// Panics when a family of `start` is missing, or when promtool finds a fault in the text.
pub(crate) fn assert_whole(open_metrics: &str, start: &str) {
    for family in names::ALL.iter().filter(|family| family.name.starts_with(start)) {
        assert!(open_metrics.contains(&format!("# TYPE {} ", family.name)), "no {} in\n{open_metrics}", family.name);
    }
    if promtool_present() {
        let prometheus = text::to_prometheus(open_metrics);
        assert_clean(&prometheus, &promtool(&["check", "metrics"], &prometheus));
    }
}

/// A source that always says the same.
pub(crate) fn says<T: Clone + Send + Sync + 'static>(snapshot: T) -> Option<Source<T>> {
    Some(Arc::new(move || Ok(snapshot.clone())))
}

/// Every source inside the agent, with a value in every field.
pub(crate) fn full_sources() -> Sources {
    Sources {
        datapath: says(full_datapath()),
        health: says(health::Health {
            // Its IPv6 address fails.
            backends: [(true, 9, 1), (false, 0, 10)].map(|(up, success, failure)| backend(up, success, failure)).into(),
        }),
        processes: says(processes::Processes {
            processes: vec![processes::Process {
                stopped: false,
                throttled_periods: 12,
                throttled_seconds: 0.5,
                oom_kills: 2,
                name: "nginx".to_owned(),
                up: true,
                restarts: 2,
                cpu_seconds: 1.5,
                memory_bytes: 4096,
            }],
        }),
        database: says(database::Database {
            epoch: 4,
            leads: true,
            in_sync: 1,
            store_age_seconds: Some(0.2),
            diverged_transactions: 3,
            promotions: 1,
            promotion_seconds: Some(0.4),
        }),
        reloads: says(Reloads { applied: 3, refused: 1, last_successful: false }),
        certificates: vec![certificates::Watched { name: "www".to_owned(), path: "/nonexistent".into() }],
        state_dir: Some("/tmp".into()),
        ..Sources::default()
    }
}

fn backend(up: bool, success: u64, failure: u64) -> health::BackendHealth {
    let (service, backend) = ("www".to_owned(), "web1".to_owned());
    let (ejected, lag) = (!up, Some((0.5, 7, !up)));
    health::BackendHealth { service, backend, up, member: up, ejected, ejections: 2, lag, success, failure, timeout: 0 }
}

fn full_datapath() -> datapath::Datapath {
    let rule = |packets, bytes| datapath::RuleCount { rule: "metrics".to_owned(), packets, bytes };
    let (service, backend) = ("www".to_owned(), "web1".to_owned());
    let interface = |name: &str, mode| datapath::Interface { name: name.to_owned(), mode };
    datapath::Datapath {
        verdicts: vec![datapath::VerdictCount { verdict: "drop", reason: "default_deny", packets: 7, bytes: 420 }],
        // One rule of the site file, once for each family.
        rules: vec![rule(1, 60), rule(2, 120)],
        services: vec![datapath::ServiceCount { service: service.clone(), connections: 4, packets: 5, bytes: 6 }],
        backends: vec![datapath::BackendCount {
            service,
            backend,
            flows: 7,
            connect_failures: 3,
            connections: 4,
            packets: 5,
            bytes: 6,
        }],
        tunnels: vec![datapath::TunnelCount { way: "sent", packets: 8, bytes: 9 }],
        flows: vec![
            datapath::FlowTable {
                table: "established",
                used: [10, 0],
                limit: 100,
                removed: 7,
                replies: [4, 0],
                replies_limit: 200,
            },
            datapath::FlowTable {
                table: "datagrams",
                used: [0, 3],
                limit: 50,
                removed: 0,
                replies: [0, 2],
                replies_limit: 50,
            },
        ],
        interfaces: vec![interface("eth0", datapath::XdpMode::Native), interface("eth\"1", datapath::XdpMode::Generic)],
        generation: 12,
        answering_syns: true,
        floods: 3,
        fence_seconds: Some(1.5),
        events_lost: 5,
    }
}

/// The value of a series in OpenMetrics text, by its exact name and labels.
pub(crate) fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}
