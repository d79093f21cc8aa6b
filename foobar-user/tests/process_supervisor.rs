//! The supervisor with real small programs: restarts, crash loops, stops, adoption, accounts.

mod process_support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use foobar_user::process::{ProcessState, Spawned, Supervisor};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_support::{Place, eventually, script, until, until_running};

fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| !text.contains(") Z "))
}

#[tokio::test]
async fn a_killed_process_is_back_within_a_second() {
    let Some(place) = Place::new() else { return };
    let supervisor = Supervisor::start(vec![script("s", "exec sleep 1000")], place.folders("a")).expect("starts");
    let first = until_running(&supervisor, "s").await.pid.expect("a pid");
    let killed = Instant::now();
    kill(Pid::from_raw(first), Signal::SIGKILL).expect("it lives");
    let second = until(&supervisor, "s", |status| {
        status.state == ProcessState::Running && status.pid.is_some_and(|pid| pid != first)
    })
    .await;
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    assert_eq!(second.restarts, 1);
    let usage = supervisor.usage();
    assert!(usage[0].up && usage[0].memory_bytes > 0, "{usage:?}");
    supervisor.stop().await;
    assert!(place.population().is_empty());
}

#[tokio::test]
async fn a_process_that_always_fails_is_a_crash_loop_with_its_last_words() {
    let Some(place) = Place::new() else { return };
    let supervisor =
        Supervisor::start(vec![script("s", "echo no such luck >&2; exit 3")], place.folders("a")).expect("starts");
    let status = until(&supervisor, "s", |status| status.state == ProcessState::CrashLoop).await;
    let message = status.message.clone().expect("a reason");
    assert!(message.contains("exit status: 3") && message.contains("no such luck"), "{message}");
    assert!(status.restarts >= 4, "{status:?}");
    supervisor.stop().await;
}

#[tokio::test]
async fn a_missing_program_is_told() {
    let Some(place) = Place::new() else { return };
    let mut plan = script("s", "");
    if let foobar_user::plan::ProcessKind::Command { command, .. } = &mut plan.kind {
        *command = vec!["/no/such/program".into()];
    }
    let supervisor = Supervisor::start(vec![plan], place.folders("a")).expect("starts");
    let status = until(&supervisor, "s", |status| status.state == ProcessState::Backoff).await;
    let message = status.message.expect("a reason");
    assert!(message.contains("/no/such/program") && message.contains("no such program"), "{message}");
    supervisor.stop().await;
}

#[tokio::test]
async fn a_stop_ends_grandchildren_and_the_deaf() {
    let Some(place) = Place::new() else { return };
    let mut deaf = script("deaf", "trap '' TERM; (setsid sleep 1000 &) ; while :; do sleep 1000; done");
    deaf.stop_timeout_ms = 100;
    let supervisor = Supervisor::start(vec![deaf], place.folders("a")).expect("starts");
    eventually("three processes", || async { (place.population().len() >= 3).then_some(()) }).await;
    let all = place.population();
    supervisor.stop().await;
    assert!(place.population().is_empty());
    assert!(all.iter().all(|pid| !alive(*pid)), "{all:?}");
}

#[tokio::test]
async fn the_environment_is_clean_and_the_account_is_nobody() {
    let Some(place) = Place::new() else { return };
    let plan = script("s", "env; id -u; id -G; echo end; exec sleep 1000");
    let folders = place.folders("a");
    let log = folders.logs.join("s.log");
    let supervisor = Supervisor::start(vec![plan], folders).expect("starts");
    let text = eventually("the script's output", || async {
        fs::read_to_string(&log).ok().filter(|text| text.contains("end\n"))
    })
    .await;
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("PWD=") && !line.starts_with("_=")).collect();
    assert!(lines[0].starts_with("PATH="), "{text}");
    assert_eq!(&lines[1..], ["65534", "65534", "end"], "{text}");
    supervisor.stop().await;
}

#[tokio::test]
async fn the_next_supervisor_adopts_what_runs() {
    let Some(place) = Place::new() else { return };
    let folders = place.folders("a");
    let plans = vec![
        script("same", "exec sleep 1000"),
        script("changed", "exec sleep 1000"),
        script("gone", "exec sleep 1000"),
    ];
    let first = Supervisor::start(plans, folders.clone()).expect("starts");
    let same = until_running(&first, "same").await.pid.expect("a pid");
    let changed = until_running(&first, "changed").await.pid.expect("a pid");
    let gone = until_running(&first, "gone").await.pid.expect("a pid");
    drop(first);
    assert!(alive(same) && alive(changed) && alive(gone));

    let plans = vec![script("same", "exec sleep 1000"), script("changed", "exec sleep 1001")];
    let second = Supervisor::start(plans, folders).expect("starts");
    let status = until_running(&second, "same").await;
    assert_eq!((status.pid, status.adopted), (Some(same), true));
    let status = until_running(&second, "changed").await;
    assert!(status.pid != Some(changed) && !status.adopted, "{status:?}");
    assert!(!alive(changed) && alive(gone));
    second.clear_leftovers().await;
    assert!(!alive(gone));

    kill(Pid::from_raw(same), Signal::SIGKILL).expect("it lives");
    let status =
        until(&second, "same", |status| status.state == ProcessState::Running && status.pid != Some(same)).await;
    assert!(!status.adopted, "the death of an adopted process is noticed: {status:?}");
    second.stop().await;
    assert!(place.population().is_empty());
}

#[tokio::test]
async fn a_reload_leaves_alone_what_did_not_change() {
    let Some(place) = Place::new() else { return };
    let plans = vec![script("keep", "exec sleep 1000"), script("go", "exec sleep 1000")];
    let supervisor = Supervisor::start(plans, place.folders("a")).expect("starts");
    let keep = until_running(&supervisor, "keep").await.pid;
    let go = until_running(&supervisor, "go").await.pid.expect("a pid");
    let plans = vec![script("keep", "exec sleep 1000"), script("new", "exec sleep 1000")];
    supervisor.apply(plans).await.expect("nothing is wrong");
    assert_eq!(until_running(&supervisor, "keep").await.pid, keep);
    until_running(&supervisor, "new").await;
    assert!(!alive(go));
    let names: Vec<String> = supervisor.status().into_iter().map(|status| status.name).collect();
    assert_eq!(names, ["keep", "new"]);
    supervisor.stop().await;
    assert!(place.population().is_empty());
}

#[tokio::test]
async fn a_child_of_another_part_is_supervised_too() {
    let Some(place) = Place::new() else { return };
    let supervisor = Supervisor::start(Vec::new(), place.folders("a")).expect("starts");
    let spawned = |fingerprint: &str| Spawned {
        name: "edge".into(),
        fingerprint: fingerprint.into(),
        stop_signal: Signal::SIGTERM,
        stop_timeout_ms: 2_000,
        spawn: Box::new(|| {
            let mut command = std::process::Command::new("sleep");
            command.arg("1000").process_group(0);
            tokio::process::Command::from(command).spawn()
        }),
    };
    supervisor.add(spawned("1")).await.expect("a cgroup");
    let first = until_running(&supervisor, "edge").await.pid.expect("a pid");
    assert_eq!(place.population(), [first]);
    supervisor.add(spawned("1")).await.expect("the same");
    assert_eq!(until_running(&supervisor, "edge").await.pid, Some(first));
    supervisor.add(spawned("2")).await.expect("another");
    let second = until(&supervisor, "edge", |status| status.pid.is_some_and(|pid| pid != first)).await;
    assert!(!alive(first) && second.restarts == 0, "{second:?}");
    supervisor.remove("edge").await;
    assert!(place.population().is_empty() && supervisor.status().is_empty());
    supervisor.stop().await;
}

#[tokio::test]
async fn a_process_held_back_stays_down_until_it_is_started() {
    let Some(place) = Place::new() else { return };
    // It does not listen to its stop signal: only the way by SIGKILL is quick.
    let deaf = "trap '' TERM; (setsid sleep 1000 &) ; while :; do sleep 1000; done";
    let mut plan = script("s", deaf);
    plan.stop_timeout_ms = 600_000;
    let plans = vec![plan, script("other", "exec sleep 1000")];
    let supervisor = Supervisor::start(plans.clone(), place.folders("a")).expect("starts");
    let other = until_running(&supervisor, "other").await.pid.expect("a pid");
    until_running(&supervisor, "s").await;
    eventually("its processes", || async { (place.population().len() >= 4).then_some(()) }).await;

    supervisor.kill_one("s").await.expect("it is known");
    assert_eq!(place.population(), [other], "nothing of it is left, and nothing else is hit");
    let status = until(&supervisor, "s", |status| status.state == ProcessState::Stopped).await;
    assert_eq!((status.pid, status.restarts), (None, 0), "{status:?}");
    supervisor.apply(plans).await.expect("nothing is wrong");
    assert_eq!(place.population(), [other], "a reload does not start it");

    supervisor.start_one("s").await.expect("it is known");
    let first = until_running(&supervisor, "s").await.pid;
    supervisor.start_one("s").await.expect("it runs already");
    assert_eq!(until_running(&supervisor, "s").await.pid, first);
    supervisor.stop_one("other").await.expect("it is known");
    assert!(!alive(other));
    until(&supervisor, "other", |status| status.state == ProcessState::Stopped).await;
    assert!(supervisor.stop_one("otter").await.is_err(), "nobody is called that");
    supervisor.kill_one("s").await.expect("it is known");
    supervisor.stop().await;
    assert!(place.population().is_empty());
}

#[tokio::test]
async fn a_kill_ends_a_stop_that_takes_long_and_a_start_that_fails() {
    let Some(place) = Place::new() else { return };
    let mut deaf = script("deaf", "trap '' TERM; while :; do sleep 1000; done");
    deaf.stop_timeout_ms = 600_000;
    let plans = vec![deaf, script("loops", "exit 1")];
    let supervisor = Supervisor::start(plans, place.folders("a")).expect("starts");
    until_running(&supervisor, "deaf").await;
    eventually("the trap", || async { (place.population().len() >= 2).then_some(()) }).await;
    until(&supervisor, "loops", |status| status.state == ProcessState::CrashLoop).await;
    let both = tokio::join!(supervisor.stop_one("deaf"), async {
        until(&supervisor, "deaf", |status| status.state == ProcessState::Stopping).await;
        supervisor.kill_one("deaf").await
    });
    assert!(both.0.is_ok() && both.1.is_ok());
    supervisor.kill_one("loops").await.expect("it is known");
    until(&supervisor, "loops", |status| status.state == ProcessState::Stopped).await;
    assert!(place.population().is_empty());
    supervisor.stop().await;
}
