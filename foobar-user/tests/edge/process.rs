//! The child as a process, and the parent's complaints.

use foobar_user::edge::Edge;

use crate::bed::{Bed, options};
use crate::free_address::free_address;

#[tokio::test]
async fn the_child_is_unprivileged() {
    let bed = Bed::start().await;
    let pid = bed.child.id().expect("running");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let field = |name: &str| -> Vec<String> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("field");
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert!(field("Uid:").iter().all(|uid| uid != "0"), "{status}");
    assert!(field("Gid:").iter().all(|gid| gid != "0"), "{status}");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    if nix::unistd::geteuid().is_root() {
        assert!(field("Groups:").is_empty(), "{status}");
    }
}

#[tokio::test]
async fn faults_are_told_with_file_names_and_advice() {
    let bed = Bed::start().await;
    let folder = tempfile::tempdir().expect("folder");
    let complaint = |change: &dyn Fn(&mut foobar_user::plan::EdgeService)| {
        let mut service = bed.service.clone();
        service.listen = vec![free_address()];
        service.redirect.clear();
        change(&mut service);
        let error = Edge::prepare(&[service], options(folder.path())).err().expect("refused");
        format!("{error:#}")
    };
    let text = complaint(&|service| service.key = "/nowhere.key".into());
    assert!(text.contains("service www") && text.contains("/nowhere.key"), "{text}");
    let (_, other_key) = bed.ca.issue("other", &["other"]);
    let text = complaint(&|service| service.key = other_key.clone());
    assert!(text.contains("www.pem") && text.contains("does not fit"), "{text}");
    let text = complaint(&|service| service.certificate = service.key.clone());
    assert!(text.contains("holds no certificate"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address");
    let text = complaint(&|service| service.listen = vec![address]);
    assert!(text.contains("another program listens there"), "{text}");
}

#[tokio::test]
async fn metrics_have_the_agreed_names() {
    let bed = Bed::start().await;
    let text = bed.metrics().await;
    for name in [
        "foobar_edge_requests_total{service=\"www\",code=\"200\"} 0",
        "foobar_edge_request_duration_seconds_bucket{le=\"+Inf\",service=\"www\"} 0",
        "foobar_edge_connections 0",
        "foobar_edge_certificate_expiry_timestamp_seconds{service=\"www\"} ",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(!text.contains("# EOF"));
}

#[tokio::test]
async fn the_child_is_put_in_its_cgroup() {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
    let mount = mounts.lines().find_map(|line| line.split(' ').nth(1).filter(|_| line.contains(" cgroup2 rw")));
    let Some(mount) = mount.filter(|_| nix::unistd::geteuid().is_root()) else {
        eprintln!("SKIPPED: needs root and a writable cgroup v2 mount");
        return;
    };
    let bed = Bed::start().await;
    let folder = tempfile::tempdir().expect("folder");
    let name = format!("foobar-edge-test-{}", std::process::id());
    let cgroup = std::path::Path::new(mount).join(&name);
    let mut service = bed.service.clone();
    service.listen = vec![free_address()];
    service.redirect.clear();
    let mut options = options(folder.path());
    options.cgroup = Some(cgroup.clone());
    let mut child = Edge::prepare(&[service], options).expect("prepare").spawn().expect("spawn");
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id().expect("running"))).expect("cgroup");
    child.kill().await.expect("kill");
    std::fs::remove_dir(&cgroup).expect("an empty cgroup");
    assert!(own.lines().any(|line| line == format!("0::/{name}")), "{own}");
}
