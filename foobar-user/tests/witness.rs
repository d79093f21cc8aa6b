//! The witness, replaced while it is asked: the next one has its port and all that it has answered, and nothing comes after.

mod free_address;
mod pki_support;

use std::fs;
use std::time::Duration;

use foobar_user::database::witness::{Client, Server, WitnessSettings};
use foobar_user::database::{State, Store as _};
use free_address::free_address;
use pki_support::Pki;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
const REPLACED: usize = 10;

/// Begins epoch after epoch; `answered` is the last that the witness has answered.
async fn write(client: Client, answered: watch::Sender<u64>) {
    loop {
        let Ok(snapshot) = client.read().await else { continue };
        let epoch = snapshot.state.map_or(0, |state| state.epoch) + 1;
        if let Ok(Some(_)) = client.swap(snapshot.version, &State { epoch, ..State::default() }).await {
            answered.send_modify(|last| *last = epoch.max(*last));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_one_has_its_port_and_its_memory_at_once() {
    let (pki, memory) = (Pki::new(&["lb1", "db1"]), tempfile::tempdir().expect("a folder"));
    let address = free_address();
    let (tls, servers, folder) = (pki.files("lb1"), vec!["db1".to_owned()], memory.path().to_owned());
    let settings = WitnessSettings { listen: vec![address], tls, servers, folder };
    let client = || Client::new("lb1".to_owned(), vec![address], pki.files("db1"));
    let (sender, mut answered) = watch::channel(0);
    let writers: Vec<_> = (0..4).map(|_| tokio::spawn(write(client(), sender.clone()))).collect();
    for round in 0..REPLACED {
        let server = Server::start(settings.clone()).unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        let before = *answered.borrow();
        let epoch = timeout(PATIENCE, client().read()).await.expect("in time").expect("it answers").state;
        assert!(epoch.map_or(0, |state| state.epoch) >= before, "round {round}: an answered swap is forgotten");
        let more = timeout(PATIENCE, answered.wait_for(|last| *last > before)).await;
        more.expect("it answers the writers").expect("they go on");
        server.stop().await;
        let text = || fs::read_to_string(memory.path().join("witness.json")).expect("its memory");
        let stopped = text();
        sleep(Duration::from_millis(20)).await;
        assert_eq!(text(), stopped, "round {round}: it writes after its end");
    }
    writers.iter().for_each(tokio::task::JoinHandle::abort);
}
