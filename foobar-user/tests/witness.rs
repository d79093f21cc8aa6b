//! The witness, replaced while it is asked: the next one has its port and all that it has answered, and nothing comes after.

mod pki_support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foobar_user::database::witness::{Client, Server, WitnessSettings};
use foobar_user::database::{State, Store as _};
use pki_support::Pki;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
const REPLACED: usize = 10;

/// Begins epoch after epoch; `answered` is the last that the witness has answered.
async fn write(client: Client, answered: Arc<AtomicU64>) {
    loop {
        let Ok(snapshot) = client.read().await else { continue };
        let epoch = snapshot.state.map_or(0, |state| state.epoch) + 1;
        if let Ok(Some(_)) = client.swap(snapshot.version, &State { epoch, ..State::default() }).await {
            answered.store(epoch, Ordering::SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_one_has_its_port_and_its_memory_at_once() {
    let (pki, memory) = (Pki::new(&["lb1", "db1"]), tempfile::tempdir().expect("a folder"));
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let (tls, servers, folder) = (pki.files("lb1"), vec!["db1".to_owned()], memory.path().to_owned());
    let settings = WitnessSettings { listen: vec![address], tls, servers, folder };
    let client = || Client::new("lb1".to_owned(), vec![address], pki.files("db1"));
    let answered = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..4).map(|_| tokio::spawn(write(client(), Arc::clone(&answered)))).collect();
    for round in 0..REPLACED {
        let server = Server::start(settings.clone()).unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        let before = answered.load(Ordering::SeqCst);
        let epoch = timeout(PATIENCE, client().read()).await.expect("in time").expect("it answers").state;
        assert!(epoch.map_or(0, |state| state.epoch) >= before, "round {round}: an answered swap is forgotten");
        let more = async {
            while answered.load(Ordering::SeqCst) <= before {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, more).await.expect("it answers the writers");
        server.stop().await;
        let text = || fs::read_to_string(memory.path().join("witness.json")).expect("its memory");
        let stopped = text();
        sleep(Duration::from_millis(20)).await;
        assert_eq!(text(), stopped, "round {round}: it writes after its end");
    }
    writers.iter().for_each(tokio::task::JoinHandle::abort);
}
