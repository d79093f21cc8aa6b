//! Limits of processes by the kernel's own cgroups: kept, counted, changed while they run, and gone with the process.

mod process_support;

use std::fs;
use std::time::Instant;

use foobar_user::plan::{Limits, ProcessPlan};
use foobar_user::process::{ProcessUsage, Supervisor, missing_controllers};
use process_support::{Place, eventually, own_groups, script, until, until_running};

const MEBIBYTE: u64 = 1 << 20;
const ALL: Limits =
    Limits { cpu_weight: Some(50), cpu_milli: Some(200), memory_bytes: Some(64 * MEBIBYTE), processes: Some(20) };

/// A place on a machine that has every controller; said aloud where it does not.
fn place() -> Option<Place> {
    let missing = missing_controllers(&ALL);
    if !missing.is_empty() {
        assert!(
            std::env::var_os("FOOBAR_KERNEL").is_none(),
            "the machines of `cargo xtask test` lack none: {missing:?}"
        );
        eprintln!("SKIPPED: this machine has no cgroup controller {}", missing.join(", "));
        return None;
    }
    Place::new()
}

fn limited(name: &str, text: &str, limits: Limits) -> ProcessPlan {
    ProcessPlan { limits, ..script(name, text) }
}

fn usage(supervisor: &Supervisor, name: &str) -> ProcessUsage {
    supervisor.usage().into_iter().find(|usage| usage.name == name).expect("it is known")
}

/// A file of the process's group, in v2 or in a v1 hierarchy.
fn group_file(place: &Place, name: &str, files: [&str; 2]) -> String {
    let group = place.group("a").join(name);
    let within = group.strip_prefix(place.mount()).expect("below the mount").to_owned();
    let legacy = own_groups().into_iter().map(|own| own.join(&within).join(files[1]));
    let found = std::iter::once(group.join(files[0])).chain(legacy).find(|path| path.exists());
    fs::read_to_string(found.unwrap_or_else(|| panic!("no {files:?} of {name}")))
        .expect("it can be read")
        .trim()
        .to_owned()
}

/// A program that takes all the memory that it can get.
const HOG: &str = "exec tail /dev/zero";

#[tokio::test]
async fn what_needs_more_memory_than_its_limit_is_killed_and_counted() {
    let Some(place) = place() else { return };
    let small = Limits { memory_bytes: Some(32 * MEBIBYTE), ..Limits::default() };
    let plans = vec![limited("hog", HOG, small), limited("modest", "exec sleep 1000", small)];
    let supervisor = Supervisor::start(plans, place.folders("a")).expect("starts");
    let modest = until_running(&supervisor, "modest").await.pid;
    let killed = until(&supervisor, "hog", |status| status.message.is_some()).await;
    assert!(killed.message.as_ref().is_some_and(|message| message.contains("its memory limit")), "{killed:?}");
    assert!(usage(&supervisor, "hog").oom_kills >= 1, "{:?}", supervisor.usage());
    assert_eq!(usage(&supervisor, "modest").oom_kills, 0);
    assert_eq!(until_running(&supervisor, "modest").await.pid, modest, "its neighbour goes on");
    supervisor.stop().await;
}

#[tokio::test]
async fn a_quota_is_kept_counted_and_changed_while_it_runs() {
    let Some(place) = place() else { return };
    let quota = |milli| Limits { cpu_milli: milli, ..Limits::default() };
    let spin = "while :; do :; done";
    let supervisor = Supervisor::start(vec![limited("s", spin, quota(Some(200)))], place.folders("a")).expect("starts");
    let pid = until_running(&supervisor, "s").await.pid;
    assert_eq!(group_file(&place, "s", ["cpu.max", "cpu.cfs_quota_us"]).split(' ').next(), Some("20000"));
    eventually("throttling", || async {
        let usage = usage(&supervisor, "s");
        (usage.throttled_periods >= 3 && usage.throttled_seconds > 0.0).then_some(())
    })
    .await;
    let began = Instant::now();
    let before = usage(&supervisor, "s");
    eventually("what ten periods let it use", || async {
        (usage(&supervisor, "s").cpu_seconds >= before.cpu_seconds + 0.2).then_some(())
    })
    .await;
    let used = usage(&supervisor, "s").cpu_seconds - before.cpu_seconds;
    // A fifth of a CPU, and what is left of a period on each: a loaded machine gives less, never more.
    let most = 0.2 * began.elapsed().as_secs_f64() + 0.1;
    assert!(used < most, "{used} s of CPU time where {most} s are the most");

    supervisor.apply(vec![limited("s", spin, quota(Some(500)))]).await.expect("nothing is wrong");
    assert_eq!(group_file(&place, "s", ["cpu.max", "cpu.cfs_quota_us"]).split(' ').next(), Some("50000"));
    supervisor.apply(vec![limited("s", spin, quota(None))]).await.expect("nothing is wrong");
    let lifted = group_file(&place, "s", ["cpu.max", "cpu.cfs_quota_us"]);
    assert!(["-1", "max 100000"].contains(&lifted.as_str()), "{lifted}");
    assert_eq!(until_running(&supervisor, "s").await.pid, pid, "no change needed a restart");
    supervisor.stop().await;
}

#[tokio::test]
async fn every_limit_reaches_the_kernel_also_of_what_runs_already() {
    let Some(place) = place() else { return };
    let many = "for i in 1 2 3 4 5; do sleep 1000 & done; wait";
    let supervisor = Supervisor::start(vec![script("s", many)], place.folders("a")).expect("starts");
    let pid = until_running(&supervisor, "s").await.pid;
    eventually("its children", || async { (place.population().len() == 6).then_some(()) }).await;
    supervisor.apply(vec![limited("s", many, ALL)]).await.expect("nothing is wrong");
    let status = until_running(&supervisor, "s").await;
    assert_eq!((status.pid, status.limits_fault), (pid, None));
    let read = |files| group_file(&place, "s", files);
    assert!(["50", "512"].contains(&read(["cpu.weight", "cpu.shares"]).as_str()));
    assert_eq!(read(["memory.max", "memory.limit_in_bytes"]), (64 * MEBIBYTE).to_string());
    assert_eq!(read(["pids.max", "pids.max"]), "20");
    assert_eq!(read(["pids.current", "pids.current"]), "6", "what ran already was moved");
    supervisor.stop().await;
    let left = own_groups().into_iter().map(|own| own.join(place.mount_name())).find(|group| group.exists());
    assert_eq!(left, None, "groups go with their processes");
}

#[tokio::test]
async fn more_processes_than_the_limit_are_refused_to_it_alone() {
    let Some(place) = place() else { return };
    let fork = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done; wait";
    let plans = vec![
        limited("forks", fork, Limits { processes: Some(10), ..Limits::default() }),
        script("other", "sleep 1000 & exec sleep 1000"),
    ];
    let supervisor = Supervisor::start(plans, place.folders("a")).expect("starts");
    until_running(&supervisor, "other").await;
    let log = place.path().join("a/logs/forks.log");
    eventually("a refusal", || async {
        fs::read_to_string(&log).ok().filter(|text| text.to_lowercase().contains("fork")).map(drop)
    })
    .await;
    assert!(place.group_population("a", "forks").len() <= 10);
    eventually("both of the other", || async { (place.group_population("a", "other").len() == 2).then_some(()) }).await;
    supervisor.stop().await;
    assert!(place.population().is_empty());
}

#[tokio::test]
async fn a_limit_goes_with_the_process_to_the_next_agent() {
    let Some(place) = place() else { return };
    let folders = place.folders("a");
    let plan = |milli| limited("s", "exec sleep 1000", Limits { cpu_milli: Some(milli), ..Limits::default() });
    let first = Supervisor::start(vec![plan(300)], folders.clone()).expect("starts");
    let pid = until_running(&first, "s").await.pid;
    drop(first);
    let second = Supervisor::start(vec![plan(400)], folders).expect("starts");
    assert_eq!(until_running(&second, "s").await.pid, pid, "another limit is no other process");
    assert_eq!(group_file(&place, "s", ["cpu.max", "cpu.cfs_quota_us"]).split(' ').next(), Some("40000"));
    second.stop().await;
}
