//! The nginx source against a real nginx on unix sockets.

mod metrics_support;

use std::path::Path;
use std::process::{Command, Stdio};

use foobar_user::metrics::nginx::Nginx;
use foobar_user::metrics::{Metrics, Sources};
use metrics_support::{Process, assert_whole, eventually, value};
use nix::sys::signal::Signal;

fn start(folder: &Path) -> Process {
    let at = folder.display();
    let configuration = format!(
        "daemon off; user root; worker_processes 1; pid {at}/nginx.pid; error_log {at}/error.log;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
         uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
         server {{ listen unix:{at}/nginx-status.sock; location = /status {{ stub_status; }} }} }}\n"
    );
    std::fs::write(folder.join("nginx.conf"), configuration).unwrap();
    let mut command = Command::new("/usr/sbin/nginx");
    let command = command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log"));
    let command = command.arg("-c").arg(folder.join("nginx.conf")).stdin(Stdio::null());
    let child = command.spawn().expect("nginx is missing: apt-get install nginx-light");
    Process { child, stop: Signal::SIGTERM }
}

#[tokio::test]
async fn a_real_nginx_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nginx-status.sock");
    assert_eq!(Nginx::read(&socket).await, Nginx(None), "nobody listens yet");

    let nginx = start(folder.path());
    let first = eventually("nginx answers", async || Nginx::read(&socket).await.0).await;
    for _ in 0..10 {
        Nginx::read(&socket).await.0.expect("nginx answers");
    }
    let last = Nginx::read(&socket).await.0.unwrap();
    assert_eq!(last.requests - first.requests, 11);
    assert_eq!(last.accepted - first.accepted, 11);
    assert_eq!((last.active, last.writing), (1, 1), "our own");

    let metrics = Metrics::new(Sources { nginx: Some(socket), ..Sources::default() });
    let text = metrics.render().await.unwrap();
    assert_whole(&text, "foobar_nginx_");
    assert_eq!(value(&text, "foobar_nginx_up"), Some(1.0));
    assert_eq!(value(&text, "foobar_nginx_connections{state=\"active\"}"), Some(1.0));
    assert_eq!(value(&text, "foobar_nginx_requests_total"), Some(last.requests as f64 + 1.0));

    drop(nginx);
    let text = metrics.render().await.unwrap();
    assert_eq!(value(&text, "foobar_nginx_up"), Some(0.0));
    assert_eq!(value(&text, "foobar_nginx_requests_total"), None, "a stopped nginx has no counters");
}
