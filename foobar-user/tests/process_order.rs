//! Order, readiness, files and orders of operators, with real small programs.

mod process_support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use foobar_user::database::Duties;
use foobar_user::plan::{FileContent, FilePlan, ProcessKind, ProcessPlan, Ready, ReadyCheck};
use foobar_user::process::{Earlier, ProcessChange, ProcessState, Supervisor};
use process_support::{Place, eventually, script, until, until_running};

fn ready(plan: ProcessPlan, check: ReadyCheck, timeout_ms: u64) -> ProcessPlan {
    ProcessPlan { ready: Some(Ready { check, timeout_ms }), ..plan }
}

fn after(plan: ProcessPlan, names: &[&str]) -> ProcessPlan {
    ProcessPlan { after: names.iter().map(|name| (*name).to_owned()).collect(), ..plan }
}

/// A program that says to one file when it has started, and so knows what to do at its end, and when it ends.
fn diary(name: &str, diary: &std::path::Path) -> ProcessPlan {
    let path = diary.display();
    let text = format!(
        "trap 'echo {name} ends >> {path}; exit 0' TERM; echo {name} begins >> {path}; while :; do sleep 0.02; done"
    );
    ProcessPlan { user: Some("root".into()), ..script(name, &text) }
}

fn script_check(text: String) -> ReadyCheck {
    ReadyCheck::Script(vec!["/bin/sh".into(), "-c".into(), text])
}

#[tokio::test]
async fn processes_start_after_those_they_wait_for_and_stop_before_them() {
    let Some(place) = Place::new() else { return };
    let (book, flag) = (place.path().join("diary"), place.path().join("flag"));
    let test = format!("test -e {}", flag.display());
    let plans = vec![
        ready(diary("first", &book), script_check(test), 60_000),
        after(diary("second", &book), &["first"]),
        after(diary("third", &book), &["second", "first"]),
        diary("free", &book),
    ];
    let supervisor = Supervisor::start(plans, place.folders("a")).expect("starts");
    until_running(&supervisor, "free").await;
    let waiting = until(&supervisor, "second", |status| status.state == ProcessState::Waiting).await;
    assert_eq!(waiting.message.as_deref(), Some("waits until first is ready"));
    until(&supervisor, "first", |status| {
        status.message.as_ref().is_some_and(|message| message.contains("not ready yet"))
    })
    .await;
    let text = fs::read_to_string(&book).expect("a diary");
    assert!(text.contains("first begins") && !text.contains("second") && !text.contains("third"), "{text}");
    fs::write(&flag, "").expect("a flag");
    until_running(&supervisor, "third").await;
    eventually("the last one's start", || async {
        fs::read_to_string(&book).ok().filter(|text| text.contains("third begins")).map(drop)
    })
    .await;
    supervisor.stop().await;
    let text = fs::read_to_string(&book).expect("a diary");
    let of = |word: &str| -> Vec<&str> {
        text.lines().filter(|line| line.ends_with(word) && !line.starts_with("free")).collect()
    };
    assert_eq!(of("begins"), ["first begins", "second begins", "third begins"]);
    assert_eq!(of("ends"), ["third ends", "second ends", "first ends"]);
}

#[tokio::test]
async fn what_is_not_ready_in_time_is_started_again_and_its_neighbour_stays() {
    let Some(place) = Place::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let open = listener.local_addr().expect("an address");
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("an address");
    let plans = vec![
        ready(script("late", "exec sleep 1000"), ReadyCheck::Tcp(closed), 300),
        ready(script("good", "exec sleep 1000"), ReadyCheck::Tcp(open), 60_000),
        after(script("waits", "exec sleep 1000"), &["late"]),
    ];
    let supervisor = Supervisor::start(plans, place.folders("a")).expect("starts");
    let good = until_running(&supervisor, "good").await;
    let status = until(&supervisor, "late", |status| status.state == ProcessState::CrashLoop).await;
    let message = status.message.clone().expect("a reason");
    assert!(message.contains("was not ready within 300 ms") && message.contains("no connection"), "{message}");
    let waits = until(&supervisor, "waits", |status| status.state == ProcessState::Waiting).await;
    assert_eq!((waits.pid, waits.restarts), (None, 0));
    assert_eq!(until_running(&supervisor, "good").await.pid, good.pid);
    // Who waits can be stopped, and one that does not run by order holds nobody up.
    supervisor.order("late", ProcessChange::Stop).expect("it is known");
    until_running(&supervisor, "waits").await;
    supervisor.stop().await;
    assert!(place.population().is_empty());
}

#[tokio::test]
async fn an_http_answer_tells_that_it_is_ready() {
    let Some(place) = Place::new() else { return };
    let server = |answer: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                use std::io::{Read, Write};
                let mut stream = stream;
                let mut request = [0; 512];
                let _ = stream.read(&mut request).and_then(|_| stream.write_all(answer.as_bytes()));
            }
        });
        ReadyCheck::Http { address, path: "/healthz".into() }
    };
    let plans = vec![
        ready(script("good", "exec sleep 1000"), server("HTTP/1.1 204 No Content\r\n\r\n"), 60_000),
        ready(script("bad", "exec sleep 1000"), server("HTTP/1.1 503 Later\r\n\r\n"), 300),
    ];
    let supervisor = Supervisor::start(plans, place.folders("a")).expect("starts");
    until_running(&supervisor, "good").await;
    let bad = until(&supervisor, "bad", |status| status.restarts >= 1).await;
    assert_ne!(bad.state, ProcessState::Running);
    supervisor.stop().await;
}

#[tokio::test]
async fn an_operators_stop_outlives_agents_until_a_start() {
    let Some(place) = Place::new() else { return };
    let folders = place.folders("a");
    let plans = || vec![script("s", "exec sleep 1000"), script("other", "exec sleep 1000")];
    let first = Supervisor::start(plans(), folders.clone()).expect("starts");
    until_running(&first, "s").await;
    let other = until_running(&first, "other").await.pid.expect("a pid");
    first.order("s", ProcessChange::Stop).expect("it is known");
    until(&first, "s", |status| status.state == ProcessState::Stopped).await;
    assert_eq!(place.population(), [other]);
    assert!(first.usage().iter().any(|usage| usage.name == "s" && usage.stopped && !usage.up));
    // The agent lifts its own hold only.
    first.start_one("s").await.expect("it is known");
    assert!(first.order("t", ProcessChange::Stop).is_err());
    drop(first);

    let second = Supervisor::start(plans(), folders.clone()).expect("starts");
    let status = until(&second, "s", |status| status.state == ProcessState::Stopped).await;
    assert!(status.message.as_ref().is_some_and(|message| message.contains("operator")), "{status:?}");
    assert_eq!(until_running(&second, "other").await.pid, Some(other));
    assert_eq!(place.population(), [other]);
    second.order("s", ProcessChange::Start).expect("it is known");
    let started = until_running(&second, "s").await.pid.expect("a pid");
    second.order("s", ProcessChange::Restart).expect("it is known");
    let again = until(&second, "s", |status| {
        status.state == ProcessState::Running && status.pid.is_some_and(|pid| pid != started)
    })
    .await;
    assert_eq!(again.restarts, 0, "nobody counts what was ordered");
    // An agent that dies between an order and its deed: the next one does it.
    second.order("other", ProcessChange::Stop).expect("it is known");
    drop(second);
    let third = Supervisor::start(plans(), folders).expect("starts");
    until(&third, "other", |status| status.state == ProcessState::Stopped).await;
    assert_eq!(place.population(), again.pid.into_iter().collect::<Vec<_>>());
    third.stop().await;
}

#[tokio::test]
async fn a_new_agent_replaces_what_runs_when_it_is_told() {
    let Some(place) = Place::new() else { return };
    let (folders, book) = (place.folders("a"), place.path().join("diary"));
    let plans = || vec![diary("s", &book)];
    let first = Supervisor::start(plans(), folders.clone()).expect("starts");
    let old = until_running(&first, "s").await.pid;
    let begins = || fs::read_to_string(&book).ok().filter(|text| text.contains("s begins")).map(drop);
    eventually("its start", || async { begins() }).await;
    drop(first);
    let second = Supervisor::start_by(plans(), folders, Duties::default(), Earlier::Replace).expect("starts");
    let new = until_running(&second, "s").await;
    assert!(new.pid != old && !new.adopted, "{new:?}");
    assert_eq!(place.population().iter().filter(|pid| Some(**pid) == old).count(), 0);
    assert_eq!(fs::read_to_string(&book).expect("a diary").lines().take(2).last(), Some("s ends"), "it was asked");
    second.stop().await;
}

#[tokio::test]
async fn what_an_agent_died_starting_is_ended_by_the_next() {
    let Some(place) = Place::new() else { return };
    let folders = place.folders("a");
    let plans = vec![script("gone", "exec sleep 1000"), script("lost", "exec sleep 1000")];
    let first = Supervisor::start(plans, folders.clone()).expect("starts");
    let gone = until_running(&first, "gone").await.pid.expect("a pid");
    let lost = until_running(&first, "lost").await.pid.expect("a pid");
    drop(first);
    // As it is between the start and what is noted of it.
    let record = r#"{"gone": {"pid": 0, "start_ticks": 0, "fingerprint": "", "configuration": ""}}"#;
    fs::write(folders.state.join("processes.json"), record).expect("a record");
    let second = Supervisor::start(vec![script("lost", "exec sleep 1000")], folders).expect("starts");
    let status = until_running(&second, "lost").await;
    assert!(status.pid != Some(lost) && !status.adopted);
    second.clear_leftovers().await;
    let left = place.population();
    assert!(!left.contains(&gone) && !left.contains(&lost) && left.len() == 1, "{left:?}");
    second.stop().await;
}

#[tokio::test]
async fn files_and_folder_come_before_the_program_and_a_change_restarts_or_reloads_it() {
    let Some(place) = Place::new() else { return };
    let template = place.write("template", "I run on {server}\n");
    let (target, home) = (place.path().join("etc/app.conf"), place.path().join("home"));
    fs::create_dir(&home).expect("a folder");
    let plan = |name: &str, signal: Option<&str>, folder: PathBuf, template: PathBuf| {
        let target = place.path().join(format!("etc/{name}.conf"));
        let text = format!("pwd; cat {0}; trap 'cat {0}' HUP; while :; do sleep 0.02; done", target.display());
        let mut plan = script(name, &text);
        let values = vec![("server".to_owned(), "web1".to_owned())];
        if let ProcessKind::Command { folder: place, files, reload_signal, .. } = &mut plan.kind {
            *place = Some(folder);
            *reload_signal = signal.map(str::to_owned);
            *files =
                vec![FilePlan { path: target, content: FileContent::Template { path: template, values }, mode: 0o600 }];
        }
        plan
    };
    let plans = || {
        vec![
            plan("app", None, home.clone(), template.clone()),
            plan("hup", Some("HUP"), home.clone(), template.clone()),
            plan("bad", None, home.clone(), place.path().join("nowhere")),
            plan("lost", None, place.path().join("nowhere"), template.clone()),
        ]
    };
    let supervisor = Supervisor::start(plans(), place.folders("a")).expect("starts");
    let log = |name: &str| fs::read_to_string(place.path().join(format!("a/logs/{name}.log"))).unwrap_or_default();
    let app = until_running(&supervisor, "app").await.pid;
    let hup = until_running(&supervisor, "hup").await.pid;
    for name in ["app", "hup"] {
        let said = eventually("what it read", || async { Some(log(name)).filter(|text| text.contains("I run")) }).await;
        assert_eq!(said, format!("{}\nI run on web1\n", home.display()));
    }
    let about = fs::metadata(&target).expect("a file");
    assert_eq!((about.uid(), about.mode() & 0o777), (65_534, 0o600));
    for (name, why) in [("bad", "cannot read the template"), ("lost", "does not exist")] {
        let status = until(&supervisor, name, |status| status.state == ProcessState::Backoff).await;
        assert!(status.message.as_ref().is_some_and(|message| message.contains(why)), "{status:?}");
    }
    fs::write(&template, "and now {server} too\n").expect("a template");
    let _ = supervisor.apply(plans()).await;
    until(&supervisor, "app", |status| status.state == ProcessState::Running && status.pid != app).await;
    eventually("the reload", || async { log("hup").contains("and now web1 too").then_some(()) }).await;
    assert_eq!(until_running(&supervisor, "hup").await.pid, hup, "it was told, not restarted");
    supervisor.stop().await;
}
